"""What the report says of the sampler."""

import re

from helpers.browser import open_in_browser
from helpers.report_inputs import create_drawn, create_inputs, create_records
import numpy as np
import pytest

from deeprank_jax.report import (
    curves,
    histogram,
    number_format,
    sampler_panel,
    write_report,
)
from deeprank_jax.sampling.reservoir import draws, groups

THUMBNAILS = lambda indices: np.zeros((len(indices), 20, 20, 3), np.uint8)
# Two intervals, of 10 steps and of 30.
METRICS = [
    {
        "step": step,
        "train/loss": 0.1,
        "train/buffers/fill": 0.5,
        "train/buffers/age": 12.0,
        "train/buffers/anchors": 90.0,
        "train/sampler_negatives/in_class": inside,
        "train/sampler_negatives/out_of_class": 8.0 - inside,
        "train/sampler_failures/no_in_class_negative": 4.0 - inside / 2,
        "train/sampler_failures/repeated": 0.0,
    }
    for step, inside in ((10, 4.0), (40, 8.0))
]


def create_many(num_steps=3, per_step=500, **changes):
    """Continuous relevances over five decades, a fifth of the negatives 0."""
    rng = np.random.default_rng(0)
    num = num_steps * per_step
    relevance = np.sort(10.0 ** rng.uniform(-5, 0, (num, 2)), axis=1)[:, ::-1]
    in_class = rng.random(num) < 0.8
    relevance[~in_class, 1] = 0
    values = dict(
        indices=rng.integers(0, 60, (num, 3)),
        relevance=relevance,
        in_class=in_class[:, None],
        steps=np.repeat(np.arange(num_steps) * 7, per_step),
    )
    return create_drawn(create_records(), THUMBNAILS, **(values | changes))


def write(tmp_path, **changes):
    inputs = create_inputs(**{"metrics": METRICS, "drawn": create_many()} | changes)
    page = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    return page, page[page.index('<section id="sampler">') :]


def cells(section, name):
    row = re.search(rf'<th scope="row">{name}<.*?</tr>', section, re.DOTALL)[0]
    return re.findall(r"<td>(.*?)</td>", row)


def test_triplets_stand_under_their_step_with_relevances_gap_and_kind(tmp_path):
    _, section = write(tmp_path, drawn=create_drawn(create_records(), THUMBNAILS))
    assert re.findall(r"<h3>Step (.*?)</h3>", section) == ["0", "10", "2,000"]
    parts = section.split("<h3>Step ")[1:]
    shown = [
        re.findall(r"(?:tive|gap) ?<b>(.*?)</b>", part)
        + re.findall(r'class="kind">(.*?) negative', part)
        for part in parts
    ]
    assert shown == [
        ["1", "0.02", "0.98", "in-class"],
        ["1", "0", "1", "out-of-class"],
        ["1", "0.001", "0.999", "in-class"],
    ]


def test_groups_show_all_their_positives_and_negatives(tmp_path):
    rng = np.random.default_rng(0)
    values = dict(
        indices=rng.integers(0, 60, (4, 4)),
        relevance=np.tile([1.0, 0.5, 0.25], (4, 1)),
        steps=np.zeros(4, int),
    )
    one = create_drawn(
        create_records(), THUMBNAILS, in_class=np.zeros((4, 1), bool), **values
    )
    _, section = write(tmp_path, drawn=one)
    values_shown = re.findall(r"(positive|negative|gap) ?<b>(.*?)</b>", section)
    assert values_shown[:4] == [
        ("positive", "1"), ("positive", "0.5"), ("negative", "0.25"), ("gap", "0.75")
    ]  # fmt: skip
    assert section.count("out-of-class negative") == 4
    none = create_drawn(
        create_records(), THUMBNAILS, in_class=np.zeros((4, 0), bool), **values
    )
    _, section = write(tmp_path, drawn=none, metrics=[])
    shown = re.findall(r"(positive|negative|gap) ?<b>(.*?)</b>", section)
    assert shown[:3] == [("positive", "1"), ("positive", "0.5"), ("positive", "0.25")]
    assert {side for side, _ in shown} == {"positive"}
    assert "<h3>Negatives</h3>" not in section
    assert "<h3>Groups</h3>" in section
    assert "the gap is" not in section
    assert "of 4 drawn groups" in section


def test_the_histogram_of_groups_tells_positives_from_negatives():
    relevance = np.tile([1.0, 0.5, 0.25, 0.0], (4, 1))
    bins = histogram.count_relevances(relevance, 2)
    np.testing.assert_allclose(bins.zeros, [0.0, 0.5])
    np.testing.assert_allclose(bins.shares.sum(axis=0), [1.0, 0.5])
    np.testing.assert_allclose(bins.shares[0], [0.0, 0.5])
    np.testing.assert_allclose(bins.shares[-1], [0.5, 0.0])
    only = histogram.count_relevances(relevance[:, :2], 2)
    assert only.shares.shape[1] == len(only.zeros) == 1
    assert "negatives<" not in histogram.draw_histogram(only)


def test_six_triplets_of_each_step_are_shown_and_all_are_counted(tmp_path):
    _, section = write(tmp_path)
    for part in section.split("<h3>Step ")[1:]:
        assert part.count('class="triplet"') == 6
    assert section.count("<h3>Step ") == 3
    assert "of 1,500 drawn triplets" in section
    many = create_many()
    np.testing.assert_array_equal(
        many.shown(), [s * 500 + i for s in range(3) for i in range(6)]
    )


def test_means_count_each_step_once():
    means = sampler_panel.mean_over_steps(
        [{"step": 5, "validation/loss": 9.0}, *METRICS]
    )
    assert means["train/sampler_negatives/in_class"] == (10 * 4 + 30 * 8) / 40
    assert sampler_panel.mean_over_steps([]) == {}
    # What an older version wrote before it was stopped is no zero.
    old = {"step": 4, "train/loss": 0.5, "train/sampler/repeated": 1.0}
    means = sampler_panel.mean_over_steps([old, *METRICS])
    assert means["train/sampler_negatives/in_class"] == (6 * 4 + 30 * 8) / 36


def test_shares_and_causes_are_those_of_the_run(tmp_path):
    _, section = write(tmp_path)
    assert cells(section, "in-class") == ["87.5%", "80.0%"]
    assert cells(section, "out-of-class") == ["12.5%", "20.0%"]
    assert cells(section, "no_in_class_negative") == ["0.5", "6.2%"]
    assert cells(section, "repeated") == ["0", "0"]
    # Never logged, and so never seen.
    assert cells(section, "bad_image") == ["0", "0"]


def test_every_cause_and_chart_of_the_sampler_is_explained():
    assert sampler_panel.CAUSES.keys() == {*draws.CAUSES, "bad_image"}
    assert sampler_panel.GROUP_CAUSES.keys() == set(groups.CAUSES)
    charts = {chart.title for chart in curves.create_charts(METRICS)}
    assert charts == {"train/loss", *sampler_panel.CHARTS}


def test_charts_of_the_sampler_stand_in_its_section(tmp_path):
    page, section = write(tmp_path)
    titles = r"<figcaption>(.*?)<"
    assert re.findall(titles, section) == ["relevance", *sampler_panel.CHARTS]
    assert re.findall(titles, page[: -len(section)]) == ["Loss"]
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_metrics_of_an_older_version_leave_only_what_was_drawn(tmp_path):
    old = [
        {"step": s, "train/loss": 1.0, "train/sampler/repeated": 0.0} for s in (1, 2)
    ]
    page, section = write(tmp_path, metrics=old)
    assert "<h3>Failures</h3>" not in section
    inside = create_many().in_class.mean()
    assert cells(section, "in-class") == [f"{inside:.1%}", "80.0%"]
    assert "drawn in 1,500 triplets" in section
    assert "train/sampler" in page[: -len(section)]


def test_a_file_of_triplets_is_taken_as_it_is(tmp_path):
    metrics = [{**e, "train/sampler_failures/bad_image": 1.0} for e in METRICS]
    for entry in metrics:
        entry["train/sampler_failures/no_in_class_negative"] = 0.0
    relevance = np.array([[0.5, 0.75]] * 3)
    triplets = create_drawn(
        create_records(), THUMBNAILS, out_of_class=None, relevance=relevance
    )
    _, section = write(tmp_path, drawn=triplets, metrics=metrics)
    assert cells(section, "in-class") == ["87.5%"]
    assert "configured" not in section
    assert cells(section, "bad_image") == ["1", "12.5%"]
    # What was never missing is no line of the chart, either.
    assert "no_positive" not in section
    assert "no_in_class_negative" not in section
    # People may call a negative what the labels call more relevant.
    assert "gap <b>\N{MINUS SIGN}0.25</b>" in section


def test_a_cause_that_a_file_did_have_is_kept():
    """A run that goes on with a file keeps what its sampler logged before."""
    from_file = create_many(out_of_class=None)
    kept = sampler_panel.drop_idle_causes(from_file, METRICS)
    causes = {name for entry in kept for name in entry if "failures" in name}
    assert causes == {"train/sampler_failures/no_in_class_negative"}
    assert sampler_panel.drop_idle_causes(create_many(), METRICS) == METRICS


def test_a_report_without_triplets_keeps_what_was_logged(tmp_path):
    _, section = write(tmp_path, drawn=None)
    assert cells(section, "out-of-class") == ["12.5%"]
    assert "<h3>Step" not in section
    page = write_report(create_inputs(drawn=None), tmp_path).read_text()
    assert "<h2>Sampler</h2>" not in page


@pytest.mark.parametrize("width", [1280, 360])
def test_the_section_fits_the_page(width, tmp_path):
    page, _ = write(tmp_path)
    found, console = open_in_browser(page, tmp_path, width=width)
    assert console == []
    assert found["overflow"] <= 0
    assert found["cut"] == []
    assert (found["broken"], found["unnamed"], found["repeated"]) == (0, 0, [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.98765, "0.988"),
        (0.0031234, "0.00312"),
        (0.00031234, "0.00031"),
        (5.23e-8, "5.2\N{MULTIPLICATION SIGN}10⁻⁸"),
        (1e-5, "10⁻⁵"),
        (9.99e-5, "10⁻⁴"),
        (1.5e-12, "1.5\N{MULTIPLICATION SIGN}10⁻¹²"),
        (999.7, "1,000"),
        (12345.6, "12,346"),
        (2.5e9, "2.5\N{MULTIPLICATION SIGN}10⁹"),
        (-0.25, "\N{MINUS SIGN}0.25"),
        (-2e-7, "\N{MINUS SIGN}2\N{MULTIPLICATION SIGN}10⁻⁷"),
        (-1e-7, "\N{MINUS SIGN}10⁻⁷"),
    ],
)
def test_numbers_are_written_as_people_do(value, text):
    assert number_format.format_number(value) == text


def test_no_relevance_is_broken_in_two_or_written_as_in_code(tmp_path):
    relevance = np.array([[3e-4, 0.0], [0.5, 5e-8], [1e-5, 1e-6]])
    triplets = create_drawn(create_records(), THUMBNAILS, relevance=relevance)
    page, section = write(tmp_path, drawn=triplets)
    titles = " ".join(re.findall(r' title="(.*?)"', section, re.DOTALL))
    seen = re.sub("<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    for text in titles, seen:
        assert not re.search(r"\d[eE][-+]?\d", text)
        assert "5\N{MULTIPLICATION SIGN}10⁻⁸" in text
    assert "those above 0" not in section
    (rule,) = re.findall(r"\n\.triplet \.label b \{(.*?)\}", page, re.DOTALL)
    assert "white-space: nowrap" in rule


def test_the_page_says_where_the_histogram_is_cut(tmp_path):
    relevance = np.array([[1.0, 0.0], [0.5, 1e-21], [1e-3, 1e-6]])
    triplets = create_drawn(create_records(), THUMBNAILS, relevance=relevance)
    _, section = write(tmp_path, drawn=triplets)
    assert "triplets; relevances above 0 but below 10⁻⁹ count as 10⁻⁹" in section


def test_relevances_over_decades_are_counted_on_a_log_axis():
    relevance = create_many().relevance
    bins = histogram.count_relevances(relevance)
    assert bins.log
    assert bins.centers[0] == pytest.approx(
        np.log10(relevance[relevance > 0].min()), abs=1e-5
    )
    # Relevances are told apart to five digits.
    assert bins.centers[-1] == pytest.approx(np.log10(relevance.max()), abs=1e-5)
    edges = bins.centers[:-1] + bins.width / 2
    for side, values in enumerate(relevance.T):
        assert bins.zeros[side] == (values == 0).mean()
        assert bins.zeros[side] + bins.shares[:, side].sum() == pytest.approx(1)
        bin_ = np.searchsorted(edges, np.log10(values[values > 0]))
        want = np.bincount(bin_, minlength=len(bins.centers)) / len(values)
        np.testing.assert_allclose(bins.shares[:, side], want)
    assert bins.zeros[0] == 0 < bins.zeros[1]
    text = re.sub("<.*?>", " ", histogram.draw_histogram(bins))
    assert {"0", "0.0001", "0.01", "0.1", "negatives"} <= set(text.split())
    assert "log scale" in text


@pytest.mark.parametrize(
    ("values", "log", "num"),
    [
        ([[1.0, 0.0]], False, 1),  # Same class: all or nothing.
        ([[0.0, 0.0]], False, 0),
        ([[0.25, 0.25]], False, 1),
        ([[1.0, 0.5], [0.9, 0.02]], False, histogram._NUM_BINS),
        ([[1.0, 0.01]], True, histogram._NUM_BINS),
        ([[1.0, 1e-300]], True, histogram._NUM_BINS),
        ([[1e4, 1e-3], [np.float32(0.1), 0.1]], True, histogram._NUM_BINS),
    ],
)
def test_any_relevances_can_be_counted_and_drawn(values, log, num):
    values = np.array(values)
    bins = histogram.count_relevances(values)
    assert (bins.log, len(bins.centers)) == (log, num)
    np.testing.assert_allclose(bins.zeros + bins.shares.sum(axis=0), 1)
    assert np.ptp(bins.centers) <= 9 + 1e-9 if log else not bins.cut
    assert "<svg" in histogram.draw_histogram(bins)


@pytest.mark.parametrize(
    ("text", "signed"),
    [
        ("0.25", "+0.25"),
        ("\N{MINUS SIGN}0.25", "\N{MINUS SIGN}0.25"),
        ("0", "0"),
        ("0.000", "0.000"),
        ("\N{MINUS SIGN}0.000", "0.000"),
        ("10⁻⁵", "+10⁻⁵"),
        ("1,234", "+1,234"),
    ],
)
def test_a_difference_has_its_sign(text, signed):
    assert number_format.with_sign(text) == signed
