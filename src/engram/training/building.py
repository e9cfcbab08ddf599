"""The model of a trial as it starts out."""

import numpy as np
import torch

from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.memory.lookup import MakeTables
from engram.memory.tables import EmbeddingTables
from engram.model import Transformer


def built_model(trial: TrialConfig, corpus: Corpus, device: torch.device, make_tables: MakeTables = EmbeddingTables) -> Transformer:
    """The trial's model with the initial weights of its seed, in training mode on `device`."""
    model = Transformer(trial.model, torch.from_numpy(np.array(corpus.compression)), corpus.end_of_text_id, make_tables)
    model.initialise(trial.seed)
    return model.to(device).train()
