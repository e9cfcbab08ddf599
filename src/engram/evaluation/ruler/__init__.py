"""RULER, long-context tasks of any length (Hsieh et al., arXiv 2404.06654): samples, scores and the score of a mere echo."""

from engram.evaluation.ruler.generate import SEED, samples
from engram.evaluation.ruler.sample import Sample
from engram.evaluation.ruler.scoring import echo_floor, score
from engram.evaluation.ruler.tasks import CATEGORIES, TASKS, tokens_to_generate

__all__ = ["CATEGORIES", "SEED", "TASKS", "Sample", "echo_floor", "samples", "score", "tokens_to_generate"]
