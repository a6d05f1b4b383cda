"""Attempt one trial, for its record or one line why there is none. Only a store error or a lost rank is raised."""

from repro import experiments, measure
from repro.environment import describe
from repro.files import StoreError
from repro.measure import Data, Monitor, Task, together
from repro.problem import told
from repro.running.work import Elsewhere, Outcome
from repro.store import Trial, TrialSpec, locked, recall, save
from repro.training.loop import Interrupted
from repro.training.parallel import ALONE, Lost, Team
from repro.training.passes import for_want_of_memory


def attempt(task: Task, data: Data, monitor: Monitor, seen: Trial | None) -> Outcome:
    """Run one trial; return its record, one line that says why it failed, or None where it was stopped.

    ``seen`` is the record that the trial was planned on. Returns Elsewhere where another process holds the trial, or
    was faster and has changed that record. Raises StoreError, and Lost where another rank is gone.
    """
    identity = task.spec.identity(data.digest)
    with locked(task.setting.store, identity) as ours:
        if not ours:
            return Elsewhere()
        if (found := recall(task.setting.store, identity)) != seen:
            return Elsewhere(found)
        try:
            task.setting.team.order("measure", task)
            trial = measure.measure(task, data, monitor)
        except Interrupted:
            return None
        except (StoreError, Lost):
            raise
        except Exception as error:  # noqa: BLE001 - one failing trial, whatever ails it, does not stop the others
            words = told(error)
            if for_want_of_memory(error):
                words += smaller(task.spec, task.setting.micro_batch, task.setting.team)
            failed = Trial(spec=task.spec, data_digest=data.digest, status="failed", message=words)
            save(task.setting.store, failed.model_copy(update={"environment": describe(task.setting.device)}))
            return words
        return trial


def smaller(spec: TrialSpec, micro_batch: int | None = None, team: Team = ALONE) -> str:
    """Return advice for a trial that ran out of memory; empty where its batch cannot be halved."""
    field = experiments.get(spec.experiment).Parameters.model_fields.get("batch")
    batch = spec.config.get("batch", field.default if field else None)
    if not isinstance(batch, int) or batch < 2:
        return ""
    passes = together.smaller_passes(spec, batch // team.world, micro_batch)
    return f"{passes}; batch = {batch // 2} in the claim, half of {batch}, may fit (a guess, and then another trial)"
