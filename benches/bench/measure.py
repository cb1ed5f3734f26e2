"""Runs workloads on filesystems in turn: A B C, then B C A, and so on."""

import filesystems
import machine
import workloads
from filesystems import Trouble


def measure(chosen, names, place, inputs, repetitions, say):
    """What each step of each workload took on each filesystem, once a repetition, as JSON has it under `workloads`; and a
    sentence about each failure.

    A repetition goes through all workloads, and in each through the filesystems, every one of them fresh; the first
    of them is another one each time. What fails on one filesystem in one repetition does not end the rest.
    """
    failures = []
    results = [_empty(workload, inputs) for workload in chosen]
    for repetition in range(repetitions):
        for workload, result in zip(chosen, results):
            here = [name for name in workload.filesystems if name in names]
            turn = repetition % len(here)
            for name in here[turn:] + here[:turn]:
                turn_name = f"{workload.key} on {name}, repetition {repetition + 1} of {repetitions}"
                say(turn_name)
                try:
                    _once(workload, result, filesystems.ALL[name](place), inputs, repetition, say)
                except (Trouble, OSError) as error:
                    say(f"  FAILED: {error}")
                    failures.append(f"{turn_name}, failed: {error}")
    return results, failures


def _empty(workload, inputs):
    steps = [
        {
            "key": step.key,
            "title": step.title,
            "kind": step.kind,
            "unit": step.unit,
            "bytes": inputs.sizes.get(step.moves),
            "measured": {},
        }
        for step in workload.steps
    ]
    return {"key": workload.key, "title": workload.title, "bound": workload.bound, "steps": steps}


def _once(workload, result, filesystem, inputs, repetition, say):
    try:
        filesystem.make()
        scene = workloads.Scene(filesystem.at, inputs, str(filesystem.place.bin))
        for step, into in zip(workload.steps, result["steps"]):
            if step.only and filesystem.name not in step.only:
                continue
            figures = _step(step, filesystem, scene)
            figures["repetition"] = repetition
            into["measured"].setdefault(filesystem.name, []).append(figures)
            say(f"  {step.title:<44}{figures['value']:10.2f} {step.unit}")
    finally:
        filesystem.end()


def _step(step, filesystem, scene):
    if step.kind == workloads.COLD:
        mounting = filesystem.make_cold()
        if step.does is None:
            return {"value": mounting}
    if step.source:
        workloads.warm_up(scene.inputs.paths[step.source])
    machine.forget_peak(filesystem.daemon)
    with machine.Meter(filesystem.daemon) as meter:
        said = step.does(scene) or {}
        with machine.Meter(filesystem.daemon) as durable:
            if step.kind == workloads.WRITE:
                workloads.make_durable(filesystem, _written(step, scene))
    figures = {
        "value": meter.seconds,
        "seconds": meter.seconds,
        "cpu_client": meter.cpu_client,
        "cpu_daemon": meter.cpu_daemon,
        "cpu_machine": meter.cpu_machine,
    }
    figures.update(said)
    if step.kind == workloads.WRITE:
        figures["durable_seconds"] = durable.seconds
        figures.update(_settled(filesystem))
    elif step.moves and meter.read < scene.inputs.sizes[step.moves]:
        raise Trouble(
            f"{step.title} on {filesystem.name} read {meter.read} bytes where {scene.inputs.sizes[step.moves]} lie: "
            "the filesystem gave back too little"
        )
    # Of the step and of what it left to the background.
    figures["peak_bytes"] = machine.peak(filesystem.daemon)
    return figures


def _written(step, scene):
    return f"{scene.at}/{step.wrote}" if step.wrote else None


def _settled(filesystem):
    with machine.Meter(filesystem.daemon) as settle:
        filesystem.settle()
    used, journal = filesystem.used()
    return {
        "settle_seconds": settle.seconds,
        "settle_cpu_machine": settle.cpu_machine,
        "used_bytes": used,
        "journal_bytes": journal,
    }
