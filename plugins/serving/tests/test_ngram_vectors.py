"""Hashed n-grams: rows of norm 1 that depend on their own text alone, and separate words that look alike from others."""

import numpy as np

from plugins.serving.decision_students.ngram_vectors import WIDTH, encode_by_ngrams

TEXTS = [
    "import numpy as np",
    "import numpy as np ",
    "IMPORT NUMPY AS NP",
    "from numpy import array",
    "Grüße aus Köln",
    "  ",
]


def test_rows_are_of_norm_1_and_depend_on_their_text_alone() -> None:
    rows = encode_by_ngrams(TEXTS)
    assert rows.shape == (6, WIDTH)
    np.testing.assert_allclose(np.sqrt((rows.toarray() ** 2).sum(axis=1)), [1, 1, 1, 1, 1, 0])
    for place, text in enumerate(TEXTS):
        np.testing.assert_array_equal(encode_by_ngrams([text]).toarray()[0], rows.toarray()[place])
    cosines = (rows @ rows.T).toarray()
    assert cosines[0, 1] > 0.999
    assert cosines[0, 2] > 0.999
    assert cosines[0, 3] > 0.3 > 0.1 > cosines[0, 4]
    assert encode_by_ngrams([]).shape == (0, WIDTH)
