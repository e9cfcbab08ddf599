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
from engramctl.sweep.spec import Budget, PerParameter, SweepSpec, sweep_variants


def pure_p_active(spec: SweepSpec, size: Size, vocab_size: int) -> int:
    """P_active of the pure MoE, which stands for all rhos: so all see equally many tokens."""
    pure = 0 if spec.slots else 1
    return count_parameters(sized_models(spec, size, [pure], vocab_size)[pure]).p_active


def flops_per_step(spec: SweepSpec, size: Size, vocab_size: int) -> int:
    """Training FLOPs per step in the paper's count, the same at every rho."""
    return 6 * pure_p_active(spec, size, vocab_size) * train_config(spec, size, 1).tokens_per_step


def expand(spec: SweepSpec, budgets: Sequence[Budget], vocab_size: int, corpus: str, tokenizer: str) -> list[TrialConfig]:
    """All trials of a sweep.

    Args:
        spec: the sweep.
        budgets: FLOPs per trial or tokens per parameter; wall times have been resolved.
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
            active = pure_p_active(sub, shape, vocab_size)
            flops = [budget.flops(active) if isinstance(budget, PerParameter) else budget for budget in budgets]
            for budget, seed, point in itertools.product(flops, range(spec.seeds), points):
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
