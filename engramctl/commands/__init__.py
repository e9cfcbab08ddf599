"""The commands, one module each; those with subcommands are packages."""
