"""All rules. Names, descriptions and messages of the first 22 are BuildKit's: they are an interface."""

from __future__ import annotations

from builder.frontend import instructions as ins
from builder.frontend.lint import advice, casing, config, files, origins, stages, variables, writing
from builder.frontend.lint.rules import Rule

_EXPANDED = (
    *(ins.Arg, ins.Env, ins.Label, ins.Copy, ins.Add, ins.Run, ins.Volume, ins.Workdir, ins.User),
    ins.StopSignal,
)

RULES = (
    Rule("StageNameCasing", "Stage names should be lowercase", of_file=casing.stage_name_casing),
    Rule(
        "FromAsCasing",
        "The 'as' keyword should match the case of the 'from' keyword",
        of_file=casing.from_as_casing,
    ),
    Rule(
        "NoEmptyContinuation",
        "Empty continuation lines will become errors in a future release",
        of_file=writing.no_empty_continuation,
    ),
    Rule(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        of_file=casing.consistent_instruction_casing,
    ),
    Rule("DuplicateStageName", "Stage names should be unique", of_file=stages.duplicate_stage_name),
    Rule(
        "ReservedStageName",
        "Reserved words should not be used as stage names",
        of_file=stages.reserved_stage_name,
    ),
    Rule(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        of_line=config.json_args_recommended,
        on=(ins.Cmd, ins.Entrypoint),
    ),
    Rule(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        of_file=writing.maintainer_deprecated,
    ),
    Rule("UndefinedArgInFrom", "FROM command must use declared ARGs", of_file=origins.undefined_arg_in_from),
    Rule(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results "
        "if the base image changes",
        of_line=config.workdir_relative_path,
        on=(ins.Workdir,),
    ),
    Rule(
        "UndefinedVar",
        "Variables should be defined before their use",
        of_line=variables.undefined_var,
        on=_EXPANDED,
    ),
    Rule(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
        of_line=config.multiple_instructions_disallowed,
        on=(ins.Cmd, ins.Entrypoint, ins.Healthcheck),
    ),
    Rule(
        "LegacyKeyValueFormat",
        "Legacy key/value format with whitespace separator should not be used",
        of_line=writing.legacy_key_value_format,
        on=(ins.Env, ins.Label),
    ),
    Rule(
        "InvalidBaseImagePlatform",
        "Base image platform does not match expected target platform",
        of_base=origins.invalid_base_image_platform,
    ),
    Rule(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        of_file=origins.redundant_target_platform,
    ),
    Rule(
        "SecretsUsedInArgOrEnv",
        "Sensitive data should not be used in the ARG or ENV commands",
        of_line=variables.secrets_used_in_arg_or_env,
        on=(ins.Arg, ins.Env),
    ),
    Rule(
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
        of_file=origins.invalid_default_arg_in_from,
    ),
    Rule(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        of_file=origins.from_platform_flag_const_disallowed,
    ),
    Rule(
        "CopyIgnoredFile",
        "Attempting to Copy file that is excluded by .dockerignore",
        of_line=files.copy_ignored_file,
        on=(ins.Copy, ins.Add),
    ),
    Rule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. "
        "If this is not intended to be a description comment, add an empty line or comment between the "
        "instruction and the comment.",
        of_file=writing.invalid_definition_description,
        experimental=True,
    ),
    Rule(
        "ExposeProtoCasing",
        "Protocol in EXPOSE instruction should be lowercase",
        of_line=config.expose_proto_casing,
        on=(ins.Expose,),
    ),
    Rule(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. "
        "This will become an error in a future release",
        of_line=config.expose_invalid_format,
        on=(ins.Expose,),
    ),
    Rule(
        "HeredocIgnoresErrors",
        "A heredoc of several commands goes on after a failure",
        of_line=advice.heredoc_ignores_errors,
        on=(ins.Run,),
        experimental=True,
        ours=True,
    ),
    Rule(
        "AptListsKept",
        "Package lists that apt downloaded make the layer larger and are soon outdated",
        of_line=advice.apt_lists_kept,
        on=(ins.Run,),
        experimental=True,
        ours=True,
    ),
    Rule(
        "CopyAllBeforeInstall",
        "Copying the whole context before dependencies are installed spoils the cache",
        of_line=advice.copy_all_before_install,
        on=(ins.Run,),
        experimental=True,
        ours=True,
    ),
    Rule(
        "AddWithoutChecksum",
        "A file from the web should be pinned by its checksum",
        of_line=advice.add_without_checksum,
        on=(ins.Add,),
        experimental=True,
        ours=True,
    ),
    Rule(
        "UnpinnedBase",
        "A base image should be named with a version or a digest",
        of_base=advice.unpinned_base,
        experimental=True,
        ours=True,
    ),
)
