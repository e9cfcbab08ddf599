import pickle

from engram.errors import FieldError, UserError


def test_a_field_error_names_its_field_and_survives_a_pipe():
    """Workers send their errors to the driver pickled."""
    for mistake in (FieldError("memory_dim", "63: a multiple of 8 is expected"), UserError("no")):
        copy = pickle.loads(pickle.dumps(mistake))
        assert type(copy) is type(mistake)
        assert str(copy) == str(mistake)
        assert vars(copy) == vars(mistake)
    mistake = FieldError("memory_dim", "63: a multiple of 8 is expected")
    assert str(mistake) == "memory_dim 63: a multiple of 8 is expected"
    assert mistake.field == "memory_dim"
    assert isinstance(mistake, UserError)
