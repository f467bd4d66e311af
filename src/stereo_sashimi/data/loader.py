"""Loaders in training: where training stands in the data, and what their workers do about signals."""

import os
import signal
import threading
from typing import Any

from torch.utils.data import DataLoader

from stereo_sashimi.data.clip_sampler import EpochSampler
from stereo_sashimi.data.split import DataError
from stereo_sashimi.signals import STOPPING


def state_in_training(sampler: EpochSampler, loop: Any, global_batch: int) -> dict[str, int]:
    """State of `sampler` after the batches that Lightning's fit loop has trained on, `global_batch` clips each.

    Workers fetch ahead, so the loop's counters say what was consumed, not the sampler's iterator. Counters rise in
    the order ready, started, processed, completed; hooks that save checkpoints run in between.
    """
    epoch, batch = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
    state = sampler.state_dict() | {"outer_epoch": epoch.processed}
    if epoch.ready > epoch.started:
        # on_train_epoch_start: the batch counters are still those of the epoch before.
        return state | {"consumed": 0}
    epoch_counted = epoch.processed == epoch.started
    finished = loop.epoch_loop.batch_progress.is_last_batch and (epoch_counted or batch.ready == batch.processed)
    if not finished:
        return state | {"consumed": min(batch.processed * global_batch, sampler.padded_size)}
    validated = not epoch_counted and batch.completed == batch.processed
    run_ended = epoch_counted and epoch.completed == epoch.processed
    if validated or run_ended:
        # Resuming from either, Lightning enters one more epoch without training in it: it must find nothing left.
        return state | {"consumed": sampler.padded_size}
    # What is left: on_train_epoch_end, or on_train_batch_end of the last batch; Lightning then counts the epoch itself.
    outer = epoch.processed + (not epoch_counted)
    if not epoch_counted and sampler.epoch_length(sampler.epoch) < sampler.epoch_length(sampler.epoch + 1):
        # Lightning would take the batches of this short epoch for batches of the next: give it an empty one first.
        return state | {"outer_epoch": outer, "consumed": sampler.padded_size}
    return state | {
        "epoch": sampler.epoch + 1,
        "outer_epoch": outer,
        "position": sampler.position_of(sampler.epoch + 1),
        "consumed": 0,
    }


def reload_for_short_chunks(trainer: Any, sampler: EpochSampler, batch_size: int) -> None:
    """Have Lightning count the batches of each epoch if they are not always as many. Raises DataError.

    It counts only when it loads the loader: without a reload it would leave out the validation after the shorter last
    chunk of a pass, or cut all chunks to that length after a resume there.
    """
    lengths = {-(-sampler.epoch_length(e) // batch_size) for e in (0, sampler.n_chunks - 1)}
    if len(lengths) == 1:
        return
    trainer.reload_dataloaders_every_n_epochs = 1
    every = trainer.val_check_interval
    if isinstance(every, int) and every > min(lengths) and trainer.check_val_every_n_epoch is not None:
        raise DataError(
            f"the last chunk of a pass over the training data has {min(lengths)} batches, fewer than "
            f"trainer.val_check_interval={every}.\n"
            "  Set trainer.check_val_every_n_epoch=null, trainer.val_check_interval=1.0, or another "
            "train.train_chunk_size."
        )


# macOS has no sigwaitinfo, Windows no mask either: there workers answer signals as torch has them do.
_CAN_LEAVE = hasattr(signal, "sigwaitinfo")


class Loader(DataLoader[Any]):
    """A DataLoader whose workers (with `obey_parent` as `worker_init_fn`) leave Ctrl-C and the like to this process.

    Ended by them they would be an error while this process saves; they end when it tells them to, or is gone.
    """

    def __iter__(self) -> Any:
        """Start the workers with these signals blocked, from their first instruction on."""
        if not _CAN_LEAVE:
            return super().__iter__()
        # Often sent to a whole process group, and not for workers to answer.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent(worker: int) -> None:
    """In a worker: the SIGTERM of the parent counts, which at its exit waits for the workers that it sent it to."""
    if _CAN_LEAVE:
        threading.Thread(target=_end_at_sigterm_of_parent, daemon=True).start()


def _end_at_sigterm_of_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class ResumableLoader(Loader):
    """The training loader; its two extra methods tell Lightning that a resume in mid-epoch is safe.

    The position itself travels in `AudioDataModule.state_dict`, because Lightning asks a loader for its length before
    it gives the loader its state, and the length depends on the position.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see the class docstring."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: see the class docstring."""
