"""`headrace completion bash|zsh|fish`: the script that makes the Tab key know headrace."""

from __future__ import annotations

import click

from .command import Command

_WHERE = {
    "bash": "~/.local/share/bash-completion/completions/headrace",
    "zsh": "a folder of your fpath, as _headrace",
    "fish": "~/.config/fish/completions/headrace.fish",
}


@click.command(
    "completion",
    cls=Command,
    examples="""
        eval "$(headrace completion bash)"                                   # now, in this shell; zsh the same
        headrace completion bash > ~/.local/share/bash-completion/completions/headrace
        headrace completion zsh > ~/.zfunc/_headrace                         # with fpath+=~/.zfunc before compinit
        headrace completion fish > ~/.config/fish/completions/headrace.fish
    """,
)
@click.argument("shell", type=click.Choice(list(_WHERE)))
def command(shell: str) -> None:
    """Print the script that completes commands, options and their values in a shell.

    bash has to be 4.4 or newer. The script asks headrace itself, so it need not be made anew after an upgrade.
    """
    from click.shell_completion import get_completion_class

    from .main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "headrace", "_HEADRACE_COMPLETE").source())
