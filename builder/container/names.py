"""Names for containers that were given none: two words that are easily told apart and typed."""

from __future__ import annotations

import secrets

_FIRST = """
    amber brave brisk calm clever coral crisp deft eager early fair fleet fond frank fresh gentle glad
    golden grand green happy hardy humble jolly keen kind late light lively lucky mellow merry mild
    modest neat noble patient plain polite proud quick quiet rapid ready rosy round sharp silent silver
    simple sleek small smart snug sober solid spry steady still stout sunny swift tidy trusty vivid warm
    wise witty young
"""
_SECOND = """
    acorn alder anchor aspen badger barley beacon beech birch bison brook canyon cedar cliff clover
    comet cove crane creek delta dune eagle ember falcon fern finch fjord flint forest garnet glacier
    grove harbour hawk hazel heron hill ibis island jackdaw juniper kestrel lagoon lake larch lark lynx
    maple marten meadow mesa moor moss newt oak ocean orchard osprey otter pebble pine plover pond
    poplar prairie quail quarry raven reef ridge river robin rowan sable sage seal shore sparrow spruce
    stone swallow thistle tide tern valley walnut willow wren
"""


def random_name() -> str:
    """One of some thousands of names; the caller sees whether it is taken."""
    return f"{secrets.choice(_FIRST.split())}_{secrets.choice(_SECOND.split())}"
