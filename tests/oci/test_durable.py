"""Trees are removed without following a link, and without what `shutil` brings along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from oci.durable import remove_tree


def test_a_tree_is_removed_whatever_is_in_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "\udcff").touch()
    (tree / "a" / "link").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    assert remove_tree(str(tree))
    assert not tree.exists() and (outside / "kept").exists()
    assert remove_tree(str(tree)), "what is gone already is gone"


def test_a_link_in_place_of_a_tree_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    link = tmp_path / "link"
    link.symlink_to("kept")
    assert not remove_tree(str(link))
    assert (tmp_path / "kept" / "file").exists()


def test_no_codec_is_loaded_for_it(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    code = 'import sys, oci.durable\nprint(oci.durable.remove_tree(sys.argv[1]), "lzma" in sys.modules)'
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "tree")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True False\n"
