"""From a sweep to its trials: every combination of size, variant, budget, seed and rho (or number of slots)."""

import itertools
from collections.abc import Sequence

from engram.config.model import ModelConfig
from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.scaling.accounting import count_parameters
from engram.scaling.allocation import check_spread
from engram.scaling.ladder import Size, size
from engramctl.sweep.models import sized_models, train_config
from engramctl.sweep.spec import SweepSpec, sweep_variants


def flops_per_step(spec: SweepSpec, size: Size, vocab_size: int) -> int:
    """Training FLOPs per step in the paper's count, taken from the pure MoE: the same at every rho, so that all see equally many tokens."""
    pure = 0 if spec.slots else 1
    base = sized_models(spec, size, [pure], vocab_size)[pure]
    return 6 * count_parameters(base).p_active * train_config(spec, size, 1).tokens_per_step


def expand(spec: SweepSpec, budgets: Sequence[float], vocab_size: int, corpus: str, tokenizer: str) -> list[TrialConfig]:
    """All trials of a sweep.

    Args:
        spec: the sweep.
        budgets: FLOPs per trial; wall times have been resolved.
        vocab_size: tokens of the tokenizer.
        corpus: fingerprint of the corpus.
        tokenizer: fingerprint of the tokenizer.

    Raises UserError when a budget doesn't pay for a single step, when P_total or P_active (over slots: P_active alone) differ too much
    between values of rho or variants, or when two variants come to the same trial.
    """
    trials = []
    for name in spec.sizes:
        compared: dict[str, ModelConfig] = {}
        for variant, sub in sweep_variants(spec):
            shape, points = size(name), sub.slots or sub.rhos
            models = sized_models(sub, shape, points, vocab_size)
            label = f"size {name}{f', variant {variant.name}' if variant.name else ''} at {'slots' if sub.slots else 'rho'} = "
            models_by_label = {f"{label}{point:g}": model for point, model in models.items()}
            compared = compared | models_by_label if spec.equal_across_variants else models_by_label
            check_spread(compared, ("p_active",) if spec.slots else ("p_total", "p_active"))
            step = flops_per_step(sub, shape, vocab_size)
            for budget, seed, point in itertools.product(budgets, range(spec.seeds), points):
                steps = int(budget / step)
                if steps < 1:
                    raise UserError(f"budget {budget:.3g} FLOPs is too small for one step of size {name}, which takes {step:.3g}")
                trials.append(
                    TrialConfig(
                        size=name,
                        rho=count_parameters(models[point]).rho if spec.slots else point,
                        seed=seed,
                        budget_flops=budget,
                        model=models[point],
                        train=train_config(sub, shape, steps),
                        corpus_fingerprint=corpus,
                        tokenizer_fingerprint=tokenizer,
                        axes=variant.labels,
                    )
                )
    _check_distinct(trials)
    return trials


def _check_distinct(trials: list[TrialConfig]) -> None:
    seen: dict[str, TrialConfig] = {}
    for trial in trials:
        twin = seen.setdefault(trial.id, trial)
        if twin is not trial:
            raise UserError(
                f"variants '{twin.variant}' and '{trial.variant}' are one and the same trial at rho = {trial.rho:g}; give one of them"
                " rhos of its own, or leave it out"
            )
