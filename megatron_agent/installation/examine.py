"""Everything doctor looks at, in the order of its table."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from megatron_agent.errors import UserError
from megatron_agent.installation import library_findings, machine_findings
from megatron_agent.installation.libraries import (
    GPU_LIBRARIES,
    NEEDED,
    import_each,
    import_together,
    wanted_versions,
)
from megatron_agent.installation.probe import run_probe
from megatron_agent.installation.table import Examination, Finding
from megatron_agent.model.checkpoint_folder import HF_FOLDER, resolve_checkpoint
from megatron_agent.training.config import TrainConfig


def examine(
    asked: str, config: TrainConfig | None = None, tokenizer: str | None = None, output_dir: str | None = None
) -> Examination:
    """Look at this installation; `asked` is auto, gpu, cpu or image. Imports happen in child processes, side by side.

    The tokenizer is that of the configuration's model where none is given, and so is the folder to write into.
    """
    with ThreadPoolExecutor(3) as pool:
        probing = pool.submit(run_probe)
        needed = pool.submit(import_together, library_findings.importable(NEEDED))
        accelerated = pool.submit(import_each, library_findings.importable(GPU_LIBRARIES))
        probe, needed_failures, gpu_failures = probing.result(), needed.result(), accelerated.result()
    expect = machine_findings.resolve_expectation(asked, probe)
    wanted = wanted_versions()
    findings = [
        library_findings.python_finding(),
        library_findings.project_finding(),
        *library_findings.needed_findings(wanted, needed_failures, probe, expect, list(gpu_failures)),
        *library_findings.optional_findings(),
        *library_findings.gpu_library_findings(wanted, gpu_failures, expect),
    ]
    if probe.torch_error is None:
        findings += [
            machine_findings.driver_finding(expect),
            machine_findings.gpu_finding(probe, expect),
            *machine_findings.collective_findings(probe, expect),
        ]
    switches, problem = machine_findings.kernel_switches(config or TrainConfig(), probe)
    findings += [problem] if problem else []
    findings += _tokenizer(tokenizer, config)
    folder = output_dir or (config.training.output_dir if config else None)
    findings.append(machine_findings.folder_finding(folder or Path.cwd(), asked=folder is not None))
    judged = {} if expect == "image" and not probe.cuda else switches
    return Examination(expect, findings, judged, probe)


def _tokenizer(path: str | None, config: TrainConfig | None) -> list[Finding]:
    """Return the row of the tokenizer that is given, or lies beside the configured weights; none without either."""
    if path is None and config is not None:
        try:
            path = str(resolve_checkpoint(config.model.checkpoint) / HF_FOLDER) if config.model.checkpoint else None
        except UserError as error:
            return [Finding("model", str(error), mend="make the checkpoint, or mend the path", state="error")]
        if path is None and Path(str(config.model.config)).is_dir():
            path = config.model.config
    return [machine_findings.tokenizer_finding(path)] if path is not None else []
