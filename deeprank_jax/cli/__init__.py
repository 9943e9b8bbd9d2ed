"""The command line `deeprank`, one file per command.

A module of this folder that defines `add_arguments` is a command, named as its file
with `-` for `_`. It defines

  add_arguments(parser): Adds the command's arguments.
  check(options): Optional. Checks that take no time, before JAX is imported.
  run(options): Runs the command and returns its `output.Result`.

and may set `USES_JAX = False`. The first line of its docstring is its help text. Every
command has `--json` without further work. Modules of commands import heavy packages
inside their functions, so that `--help` and usage errors come at once.
"""
