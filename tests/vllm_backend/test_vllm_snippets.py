"""What docs/vllm.md starts runs as it stands there, with the demo pair under the published models' names."""

from __future__ import annotations

from vllm_processes import SECONDS, Process


def output_of(script: Process) -> str:
    """Wait for a script's end and return what it printed."""
    printed = script.wait(SECONDS)
    assert script.popen.returncode == 0, printed[-2000:]
    return printed


def test_a_script_with_engines_runs_as_it_is_printed(printed_script: Process) -> None:
    assert "(1, 256) 0" in output_of(printed_script)


def test_options_are_taken_as_they_are_printed(printed_options: Process) -> None:
    assert "(1, 256)" in output_of(printed_options)
