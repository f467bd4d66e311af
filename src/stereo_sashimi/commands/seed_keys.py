"""Keys and options of the original S4 repository's YAML, and what becomes of each; used by `seed_config.py`."""

# Old group -> old option -> ours. A data set may have any name.
OPTIONS = {
    "trainer": {"default": "default"},
    "loader": {"default": "default"},
    "task": {"multiclass_classification": "multiclass_classification"},
    "optimizer": {"adamw": "adamw"},
    "scheduler": {"plateau": "plateau", "cosine_warmup": "cosine_warmup"},
    "model": {"sashimi": "sashimi", "unet": "sashimi_unet"},
    "encoder": {"embedding": "embedding"},
    "decoder": {"sequence": "categorical", "dml": "dml"},
}
KEPT = {
    "dataset": "path bits sample_len train_percentage quantization drop_last context_len pad_len is_stereo",
    "model": "d_model n_layers pool expand ff dropout dropres",
    "model.layer": "d_state n_ssm dt_min dt_max dt_transform",
    "train": "seed monitor mode train_chunk_size val_chunk_size test",
    "task": "metrics",
    "loader": "batch_size num_workers pin_memory persistent_workers",
    "optimizer": "lr weight_decay betas",
    "scheduler": "patience factor min_lr",
    "trainer": "max_epochs max_steps limit_train_batches limit_val_batches limit_test_batches accelerator devices "
    "num_nodes strategy precision accumulate_grad_batches gradient_clip_val log_every_n_steps val_check_interval "
    "check_val_every_n_epoch num_sanity_val_steps overfit_batches",
}
MOVED = {
    "dataset.target_sr": "dataset.sample_rate",
    "scheduler.num_warmup_steps": "scheduler.warmup_steps",
    "scheduler.num_training_steps": "scheduler.total_steps",
    "trainer.gpus": "trainer.devices",
    "decoder.n_mixtures": "decoder.n_mixtures",
}
# What the original's groups say where an experiment is silent, and ours say otherwise.
DEFAULTS: dict[str, dict[str, dict[str, float]]] = {
    "optimizer": {"adamw": {"optimizer.lr": 0.001}},
    "loader": {"default": {"loader.batch_size": 50}},
    "trainer": {"default": {"trainer.max_epochs": 200}},
    "scheduler": {"cosine_warmup": {"scheduler.warmup_steps": 1000, "scheduler.total_steps": 40000}},
}
ANY = object()
# Key -> values that say what always holds here, and why; such a key is left out.
ALWAYS: dict[str, tuple[tuple[object, ...], str]] = {
    "dataset.__l_max": ((ANY,), "kernels need no longest length"),
    "dataset.interleaving_strategy": ((ANY,), "channels are an axis of one model, not a sequence in turns"),
    "decoder.mode": (("last", "full"), "every frame is predicted"),
    "encoder.mode": ((None,), "there is one kind"),
    "loader.drop_last": ((ANY,), "no clip is left out of an epoch; chunks have whole batches or a shorter last one"),
    "train.interval": ((ANY,), "each scheduler knows when it steps"),
    "model.prenorm": ((True,), "blocks normalise first"),
    "model.transposed": ((True,), "tensors are (batch, length, channels)"),
    "model.residual": (("R",), "residual branches are added"),
    "model.norm": (("layer",), "the model option chooses the norm"),
    "model.initializer": ((None,), "torch's own initialisation"),
    "model.interp": ((0,), "levels are not interpolated"),
    "model.act_pool": ((None,), "pools have no activation"),
    "model.pool_mode": (("linear",), "pools are linear"),
    "model.layer.mode": (("nplr", "dplr"), "the layer of model=sashimi"),
    "model.layer.init": (("legs",), "the layer of model=sashimi starts from HiPPO-LegS"),
    "model.layer.measure": (("legs", None), "the layer of model=sashimi starts from HiPPO-LegS"),
    "model.layer.l_max": ((ANY,), "kernels need no longest length"),
    "model.layer.rank": ((1,), "the layer of model=sashimi has rank one"),
}
# Key, or section -> what to use instead of it.
INSTEAD = {
    "dataset._name_": "only qautoaudio can be translated; for SC09 choose dataset=sc09",
    "model._name_": "choose the model in defaults: - /model: sashimi, or unet",
    "model.output_head": "write `decoder: dml`, or `decoder: sequence` for a categorical head",
    "model.n_mixtures": "write `decoder: {_name_: dml, n_mixtures: ..}`",
    "model.layer.mode": "for the diagonal layer take this key out, and run with model/layer=s4d",
    "model.layer.init": "for the diagonal layer take this key out, and run with model/layer=s4d model.layer.init=..",
    "model.layer.lr": "the rate of dt, Lambda, B and P is optimizer.ssm_lr",
    "train.ema": "averaged weights are a callback: run with callbacks=ema",
    "train.ckpt": "a run is resumed with checkpoint=<run>/checkpoints/last.ckpt",
    "train.pretrained_model_path": "read it with stereo_sashimi.interop.load_lightning",
    "wandb": "logger=wandb, its settings are logger.wandb.*",
    "callbacks": "callbacks have other names; see configs/callbacks",
    "hydra": "the run folder is paths.runs",
}
