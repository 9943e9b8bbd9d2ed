import collections

import numpy as np
import pytest

from deeprank_jax import errors
from deeprank_jax.data import rated_triplets, simulated_ratings
from deeprank_jax.data.records import Records

PAPER = """red car
http://a.b/images/x%20y.jpg?size=1
b/1.jpg
http://a.b/2.jpg

b/3.jpg
/data/c/x y.jpg
1.jpg
"""


def create_records(names, labels=None, label_names=None):
    if labels is None:
        labels = np.zeros((len(names), 1))
    return Records(
        name="own/split",
        labels=np.asarray(labels, np.int32),
        level_names=("level_1", "level_2")[: np.shape(labels)[1]],
        label_names=label_names or (("all",),),
        read=lambda index: b"",
        describe=lambda index: names[index],
    )


SPLITS = {
    "train": create_records(["a/x y.jpg", "b/1.jpg"]),
    "test": create_records(["b/2.jpg", "b/3.jpg", "c/4.jpg", "d/4.jpg"]),
}
# No two of one file name.
UNIQUE = SPLITS | {"test": create_records(["b/2.jpg", "b/3.jpg"])}


def read(tmp_path, text, name="rated.txt", splits=SPLITS):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return rated_triplets.read_rated_triplets(path, splits).indices


def test_the_papers_format_is_read(tmp_path):
    found = read(tmp_path, PAPER + "\n\n", splits=UNIQUE)
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 0, 1]])
    assert found.dtype == np.int64


@pytest.mark.parametrize("name", ["rated.csv", "rated.txt"])
def test_a_csv_is_read(tmp_path, name):
    text = "\ufeffquery,note,negative,positive\r\n1.jpg,,c/4.jpg,3.jpg\r\n"
    np.testing.assert_array_equal(read(tmp_path, text, name), [[1, 3, 4]])


def test_a_path_tells_files_of_one_name_apart(tmp_path):
    text = "query,positive,negative\n/x/d/4.jpg,c/4.jpg,2.jpg\n"
    np.testing.assert_array_equal(read(tmp_path, text), [[5, 4, 2]])
    with pytest.raises(errors.DataError, match=r"row 1: '4.jpg' could be 2 records"):
        read(tmp_path, text.replace("/x/d/", ""))


def test_a_file_name_alone_tells_nothing_where_folders_number_their_images(tmp_path):
    """There is a b/1.jpg, but what was rated is another folder's."""
    text = "query,positive,negative\n{},c/4.jpg,2.jpg\nd/4.jpg,c/4.jpg,b/2.jpg\n"
    same = [[5, 4, 2]]
    for known in "b/1.jpg", "/photos/b/1.jpg", "http://x.y/b/1.jpg", "1.jpg":
        found = read(tmp_path, text.format(known))
        np.testing.assert_array_equal(found, [[1, 4, 2], *same])
    for other in "cats/1.jpg", "/e/4.jpg", "http://x.y/cats/1.jpg", "xb/1.jpg":
        np.testing.assert_array_equal(read(tmp_path, text.format(other)), same)
    text = "query,positive,negative\ncats/1.jpg,dogs/3.jpg,2.jpg\n"
    np.testing.assert_array_equal(read(tmp_path, text, splits=UNIQUE), [[1, 3, 2]])


def test_a_name_that_two_records_share_does_not_hide_the_others(tmp_path):
    """Of 22 records, two are called alike; the file is of another folder."""
    names = [f"a/{i}.jpg" for i in range(20)] + ["x/cover.jpg", "y/cover.jpg"]
    splits = {"test": create_records(names)}
    text = "query,positive,negative\nold/0.jpg,old/1.jpg,http://x.y/old/2.jpg\n"
    np.testing.assert_array_equal(read(tmp_path, text, splits=splits), [[0, 1, 2]])
    text += "old/0.jpg,old/1.jpg,old/cover.jpg\nold/0.jpg,old/1.jpg,y/cover.jpg\n"
    found = read(tmp_path, text, splits=splits)
    np.testing.assert_array_equal(found, [[0, 1, 2], [0, 1, 21]])


def test_images_of_other_folders_are_told_as_such(tmp_path):
    path = tmp_path / "rated.csv"
    path.write_text(
        "query,positive,negative\nd/4.jpg,c/4.jpg,b/2.jpg\n"
        "cats/1.jpg,c/4.jpg,2.jpg\nz.jpg,c/4.jpg,2.jpg\n"
    )
    found = rated_triplets.read_rated_triplets(path, SPLITS)
    assert (len(found.missing), found.num_in_other_folders) == (2, 1)
    assert "; records in other folders have the file names of 1)" in found.describe()


@pytest.mark.parametrize(
    "names",
    [
        {"train": ["cats/1.jpg", "a/2.jpg"], "test": ["cats/1.jpg", "b/3.jpg"]},
        {
            "train": ["cats/1.jpg", "a/2.jpg"],
            "test": ["x/photos/cats/1.jpg", "b/3.jpg"],
        },
    ],
    ids=["twice", "inside_and_outside"],
)
def test_what_could_be_two_records_is_refused(names, tmp_path):
    splits = {name: create_records(found) for name, found in names.items()}
    text = "query,positive,negative\nphotos/cats/1.jpg,2.jpg,3.jpg\n"
    with pytest.raises(
        errors.DataError, match=r"'photos/cats/1.jpg' could be 2 record"
    ):
        read(tmp_path, text, splits=splits)


def test_of_records_that_end_a_path_the_longest_is_meant(tmp_path):
    splits = {"test": create_records(["1.jpg", "cats/1.jpg", "2.jpg", "3.jpg"])}
    text = "query,positive,negative\n/photos/cats/1.jpg,/photos/1.jpg,2.jpg\n"
    np.testing.assert_array_equal(read(tmp_path, text, splits=splits), [[1, 0, 2]])


def test_a_record_may_lie_deeper_than_it_was_rated(tmp_path):
    splits = {"test": create_records(["x/a/1.jpg", "x/b/1.jpg", "x/b/2.jpg"])}
    text = "query,positive,negative\na/1.jpg,b/1.jpg,2.jpg\n"
    np.testing.assert_array_equal(read(tmp_path, text, splits=splits), [[0, 1, 2]])


def test_what_was_written_is_read(tmp_path):
    triplets = np.array([[5, 0, 2], [4, 5, 1], [2, 3, 0]])
    path = tmp_path / "new" / "rated.csv"
    rated_triplets.write_rated_triplets(path, triplets, SPLITS)
    assert path.read_text().splitlines()[:2] == [
        "query,positive,negative",
        "d/4.jpg,a/x y.jpg,b/2.jpg",
    ]
    found = rated_triplets.read_rated_triplets(path, SPLITS).indices
    np.testing.assert_array_equal(found, triplets)


def test_missing_images_are_counted_and_named(tmp_path, warnings_logged):
    rows = ["1.jpg,2.jpg,3.jpg", "1.jpg,8.jpg,9.jpg", "7.jpg,1.jpg,9.jpg"]
    text = "\n".join(["query,positive,negative", *rows])
    np.testing.assert_array_equal(read(tmp_path, text), [[1, 2, 3]])
    assert len(warnings_logged) == 1
    assert (
        "2 of 3 triplets contain images that are no records (3 images, e.g. '8.jpg' "
        "(row 2), '9.jpg' (row 2), '7.jpg' (row 3))" in warnings_logged[0]
    )
    with pytest.raises(errors.DataError, match=r"2 of 2 .* so none can be used"):
        read(tmp_path, text.replace(rows[0] + "\n", ""))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "query,positive\n1.jpg,2.jpg\n", "no column 'negative' .*'query,pos"),
        ("a.csv", "1.jpg,2.jpg,3.jpg\n", "no column 'query' .*'1.jpg,2.jpg,3.jpg'"),
        ("a.csv", "query,positive,negative\n", "contains no triplet; it needs a head"),
        ("a.csv", "query,positive,negative\n1.jpg,2.jpg,3.jpg\n1.jpg,2.jpg\n",
         r"row 2 has no negative \('1.jpg,2.jpg,'\)"),
        ("a.csv", "query,positive,negative\n1.jpg,2.jpg,1.jpg\n",
         "row 1 contains an image twice: its query '1.jpg' is also its negative"),
        ("a.csv", "query,positive,negative\n1.jpg,2.jpg,b/2.jpg\n",
         "row 1 contains an image twice: its positive '2.jpg' is also its negative"),
        ("a.csv", "query,positive,negative\n1.jpg,9.jpg,9.jpg\n",
         "row 1 contains an image twice: its positive '9.jpg' is also its negative"),
        ("a.csv", "x" * 200_000, r"cannot be read \(field larger"),
        ("a.txt", "", "contains no triplet"),
        ("a.txt", "red car\n1.jpg\n2.jpg\nblue car\n", "line 4 is 'blue car', which"),
        ("a.txt", PAPER + "a boat\nb/1.jpg\n",
         r"row 3 \(lines 9 to 12\) ends after 'b/1.jpg': the file has 10 lines"),
        ("a.txt", "car\n1.jpg\n2.jpg\n1.jpg\n",
         r"row 1 \(lines 1 to 4\) contains an image twice"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read .*it needs a header"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, name, text, message):
    with pytest.raises(errors.DataError, match=message) as caught:
        read(tmp_path, text, name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(errors.DataError, match="cannot be read"):
            rated_triplets.read_rated_triplets(path, SPLITS)


def animals(num_designs=3):
    """Two levels; the words of the names say more."""
    names = ("red cat", "black cat", "red dog", "oak", "red rose")
    fine = np.arange(len(names)).repeat(num_designs)
    labels = np.stack([np.where(fine < 3, 0, 1), fine], axis=1)
    ids = [f"{names[label]}/{i}" for i, label in enumerate(fine)]
    return create_records(ids, labels, (("animal", "plant"), names))


def test_names_and_levels_say_how_similar_records_are():
    records, i = animals(1), simulated_ratings.name_similarity
    assert i(records, 0, 0) == 3
    assert i(records, 0, 1) == pytest.approx(1 + 2 / 3)
    assert i(records, 0, 4) == pytest.approx(2 / 3)
    assert i(records, 1, 2) == 1
    assert i(records, 1, 3) == 0


def test_simulated_raters_err_as_often_as_they_should():
    splits = {"train": animals(20), "empty": animals(0), "test": animals(10)}
    found = simulated_ratings.simulate_ratings(splits, num=3000, seed=1)
    assert len(found) == 3000
    assert np.sum(found[:, 0] < 100) == 2000
    assert ((found < 100).all(axis=1) | (found >= 100).all(axis=1)).all()
    assert all(len(set(row)) == 3 for row in found.tolist())
    errors_made, kinds = 0, collections.Counter()
    for row in found.tolist():
        records = splits["train" if row[0] < 100 else "test"]
        anchor, one, two = (i if row[0] < 100 else i - 100 for i in row)
        near = simulated_ratings.name_similarity(records, anchor, one)
        far = simulated_ratings.name_similarity(records, anchor, two)
        assert near != far
        errors_made += near < far
        kinds[max(near, far)] += 1
    assert 0.08 < errors_made / 3000 < 0.12
    assert len(kinds) > 3
    again = simulated_ratings.simulate_ratings(splits, num=3000, seed=1)
    np.testing.assert_array_equal(again, found)
    other = simulated_ratings.simulate_ratings(splits, num=3000, seed=2)
    assert (other != found).any()


def test_records_that_no_name_tells_apart_are_refused():
    with pytest.raises(errors.DataError, match="all records have the same name"):
        simulated_ratings.simulate_ratings(
            {"train": create_records(list("abcd"))}, num=10
        )


EVALUATED = {
    "train": create_records(["a/0.jpg", "a/1.jpg"]),
    "validation": create_records(["v/2.jpg", "v/3.jpg", "v/4.jpg"]),
    "test": create_records(["t/5.jpg", "t/6.jpg", "t/7.jpg", "t/8.jpg"]),
}
HEADER = "query,positive,negative"


def read_splits(path, *rows, names=("validation", "test")):
    if rows:
        path.write_text("\n".join([HEADER, *rows]))
    return rated_triplets.read_rated_splits(str(path), EVALUATED, names)


def test_each_split_gets_its_own_triplets_of_a_file_for_all(tmp_path, warnings_logged):
    found = read_splits(
        tmp_path / "rated.csv",
        "7.jpg,5.jpg,8.jpg",
        "2.jpg,3.jpg,4.jpg",
        "2.jpg,3.jpg,5.jpg",
        "0.jpg,1.jpg,9.jpg",
        "8.jpg,6.jpg,7.jpg",
    )
    np.testing.assert_array_equal(found["validation"].indices, [[0, 1, 2]])
    np.testing.assert_array_equal(found["test"].indices, [[2, 0, 3], [3, 1, 2]])
    assert (found["test"].num_in_file, found["test"].num_missing) == (5, 1)
    assert found["test"].missing == {"9.jpg": "row 4"}
    assert [found[s].num_elsewhere for s in ("validation", "test")] == [3, 2]
    assert found["test"].describe() == (
        "2 of 5 triplets, 2 contain images of other splits, 1 contain images that are "
        "no records (1 images, e.g. '9.jpg' (row 4))"
    )
    # What is missing is missing for all, and said once.
    assert len(warnings_logged) == 1


def test_each_split_may_have_a_file_of_its_own(tmp_path):
    (tmp_path / "validation.csv").write_text(f"{HEADER}\n4.jpg,3.jpg,2.jpg")
    (tmp_path / "test.csv").write_text(
        f"{HEADER}\n6.jpg,5.jpg,7.jpg\n2.jpg,3.jpg,4.jpg"
    )
    found = read_splits(tmp_path / "{split}.csv")
    np.testing.assert_array_equal(found["validation"].indices, [[2, 1, 0]])
    np.testing.assert_array_equal(found["test"].indices, [[1, 0, 2]])
    assert found["validation"].describe() == "1 of 1 triplets"
    (tmp_path / "test.csv").write_text(f"{HEADER}\n2.jpg,3.jpg,4.jpg")
    with pytest.raises(
        errors.DataError,
        match=r"test\.csv: no triplet has all three images in test \(0 of 1 triplets, "
        "1 contain images of other splits",
    ):
        read_splits(tmp_path / "{split}.csv")
    (tmp_path / "test.csv").unlink()
    with pytest.raises(errors.DataError, match=r"test\.csv: cannot be read"):
        read_splits(tmp_path / "{split}.csv")


def test_a_split_may_have_none_of_a_file_for_all_but_not_all(tmp_path, warnings_logged):
    path = tmp_path / "rated.csv"
    found = read_splits(path, "7.jpg,5.jpg,8.jpg")
    assert found["validation"].indices.shape == (0, 3)
    assert len(found["test"].indices) == 1
    (warning,) = warnings_logged
    assert "no triplet has all three images in validation, which is" in warning
    with pytest.raises(
        errors.DataError,
        match=r"in validation or test \(0 of 2 triplets, 2 contain images of other",
    ):
        read_splits(path, "7.jpg,5.jpg,2.jpg", "0.jpg,1.jpg,2.jpg")
