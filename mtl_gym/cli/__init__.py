"""The command line ``mtl-gym``: one file a command, and a row of ``COMMANDS``."""

from mtl_gym.cli.listing import first_sentence, tables
from mtl_gym.cli.messages import console, errors, print_json, reported
from mtl_gym.cli.options import (
    Address,
    EnvironmentId,
    EnvironmentSettings,
    ExecutorName,
    Json,
    ProblemName,
    Quiet,
    assignments,
    command_line,
    complete_problem,
    environment_arguments,
    given_path,
)
from mtl_gym.cli.program import app, full_app, main

__all__ = [
    "Address",
    "EnvironmentId",
    "EnvironmentSettings",
    "ExecutorName",
    "Json",
    "ProblemName",
    "Quiet",
    "app",
    "assignments",
    "command_line",
    "complete_problem",
    "console",
    "environment_arguments",
    "errors",
    "first_sentence",
    "full_app",
    "given_path",
    "main",
    "print_json",
    "reported",
    "tables",
]
