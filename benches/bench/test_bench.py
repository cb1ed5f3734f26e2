"""What computes and draws the figures, on a recorded report; `scripts/bench --self-test`."""

import filecmp
import html.parser
import json
import os
import re
import tempfile
import unittest
import zlib
from unittest import mock

import command
import figures
import inputs
import measure
import page
import tables
import workloads

HERE = os.path.dirname(__file__)
VOID = {"meta", "rect", "circle", "line", "br"}


def recorded():
    with open(os.path.join(HERE, "sample.json"), encoding="utf-8") as file:
        return json.load(file)


class Page(html.parser.HTMLParser):
    """Sees that what is opened is closed, and gathers what a test asks about."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], ""
        self.feed(source)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"{tag} closes what it did not open"

    def handle_data(self, data):
        self.words += data


class Figures(unittest.TestCase):
    def step(self, ours, theirs):
        as_measured = lambda numbers: [{"value": v, "repetition": i} for i, v in enumerate(numbers) if v is not None]
        return {"measured": {"cairn": as_measured(ours), "btrfs": as_measured(theirs)}}

    def test_a_ratio_is_of_medians_and_its_range_is_of_the_repetitions(self):
        seen = figures.ratio(self.step([1, 2, 9], [2, 2, 3]), "cairn", "btrfs")
        self.assertEqual(seen, (1.0, 0.5, 3.0))

    def test_a_repetition_that_failed_on_one_side_is_paired_with_nothing(self):
        seen = figures.ratio(self.step([None, 2, 4], [1, 2, 2]), "cairn", "btrfs")
        self.assertEqual(seen, (1.5, 1.0, 2.0))

    def test_there_is_no_ratio_to_what_was_not_measured(self):
        self.assertIsNone(figures.ratio(self.step([1], []), "cairn", "btrfs"))

    def test_every_target_and_headline_names_a_step_that_exists(self):
        steps = {(w.key, s.key) for w in workloads.ALL for s in w.steps}
        self.assertLessEqual({(t.workload, t.step) for t in figures.TARGETS}, steps)
        known = {(t.workload, t.step, t.peer, t.name) for t in figures.TARGETS}
        self.assertLessEqual({headline[1:] for headline in page.HEADLINES}, known)

    def test_the_recorded_targets_are_computed_alike_again(self):
        report = recorded()
        self.assertTrue(report["targets"])
        self.assertEqual(figures.targets(report), report["targets"])

    def test_a_stream_that_btrfs_did_not_compress_is_told(self):
        report = recorded()
        self.assertEqual(figures.doubts(report), [])
        step = figures.step_of(report, "streams", "new")
        for measured in step["measured"]["btrfs"]:
            measured["used_bytes"] = step["bytes"]
        self.assertEqual(len(figures.doubts(report)), 1)

    def test_numbers_keep_three_digits(self):
        shown = [tables.number(v) for v in (None, 0, 0.01234, 0.1234, 1.234, 12.34, 1234.5)]
        self.assertEqual(shown, ["–", "0", "0.0123", "0.123", "1.23", "12.3", "1,234"])


class Output(unittest.TestCase):
    def test_the_page_is_whole_and_loads_nothing(self):
        source = page.page(recorded())
        seen = Page(source)
        self.assertNotIn("script", seen.tags)
        self.assertFalse([a for a in seen.attributes if a[0] in ("src", "href", "xlink:href")])
        self.assertNotRegex(source, r"https?://|url\(|@import")

    def test_the_page_tells_each_step_and_draws_each_repetition(self):
        report = recorded()
        source = page.page(report)
        words = Page(source).words
        dots = 0
        for workload in report["workloads"]:
            for step in workload["steps"]:
                self.assertIn(step["title"], words)
                dots += sum(len(measured) for measured in step["measured"].values())
        self.assertEqual(source.count('class="dot"'), dots)

    def test_nothing_is_drawn_outside_its_track(self):
        for at in re.findall(r'(?:cx|x1|x2|width)="(-?[\d.]+)%"', page.page(recorded())):
            self.assertTrue(0 <= float(at) <= 100, at)

    def test_what_a_report_holds_is_text_and_never_markup(self):
        report = recorded()
        report["notes"] = ["<script>alert(1)</script>"]
        self.assertNotIn("script", Page(page.page(report)).tags)

    def test_a_report_of_one_workload_and_one_filesystem_still_makes_everything(self):
        report = recorded()
        report["workloads"] = report["workloads"][-1:]
        for step in report["workloads"][0]["steps"]:
            step["measured"] = {"ext4": step["measured"]["ext4"][:1]}
        report["targets"] = figures.targets(report)
        Page(page.page(report))
        self.assertIn("ext4", tables.text(report))

    def test_a_failure_is_told_everywhere(self):
        report = recorded()
        report["failures"] = ["long on cairn failed"]
        for output in (page.page(report), tables.text(report), tables.markdown(report)):
            self.assertIn("long on cairn failed", output)

    def test_markdown_rows_have_as_many_cells_as_their_heads(self):
        widths = []
        for line in tables.markdown(recorded()).splitlines():
            if line.startswith("|"):
                widths.append(line.count("|"))
            else:
                self.assertLessEqual(len(set(widths)), 1)
                widths = []

    def test_another_schema_is_refused_by_name(self):
        report = dict(recorded(), schema_version=99)
        with self.assertRaisesRegex(command.Trouble, "99"):
            command.recorded(report, "file")


class Inputs(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.at = directory.name
        self.tree = os.path.join(self.at, "tree")
        os.mkdir(self.tree)
        for i in range(60):
            with open(f"{self.tree}/{i}", "w", encoding="ascii") as file:
                file.write("a line of a file\n" * (i + 1))

    def test_a_stream_is_as_long_as_asked_and_holds_nothing_twice(self):
        pool = os.urandom(3 << 20)
        path = os.path.join(self.at, "stream")
        inputs._compressible(path, pool, (7 << 20) + 5, "seed")
        with open(path, "rb") as file:
            made = file.read()
        self.assertEqual(len(made), (7 << 20) + 5)
        blocks = [made[at : at + 4096] for at in range(0, 7 << 20, 4096)]
        self.assertEqual(len(set(blocks)), len(blocks))

    def test_a_pool_is_compressible_in_every_block(self):
        for i in range(20):
            with open(f"{self.tree}/packed-{i}", "wb") as file:
                file.write(os.urandom(300_000))
            with open(f"{self.tree}/text-{i}", "wb") as file:
                file.write(b"".join(b"line %d of %d\n" % (n, i) for n in range(20_000)))
        pool = inputs._pool(self.tree)
        self.assertGreater(len(pool), 1 << 20)
        for at in range(0, len(pool), inputs.BLOCK):
            self.assertLess(len(zlib.compress(pool[at : at + inputs.BLOCK])), 0.7 * inputs.BLOCK)

    def test_every_twentieth_file_of_the_edited_tree_differs(self):
        edited = inputs._edited(self.tree, os.path.join(self.at, "edited"))
        pairs = zip(inputs.files(self.tree), inputs.files(edited))
        differing = sum(not filecmp.cmp(before, after, shallow=False) for before, after in pairs)
        self.assertEqual(differing, 3)

    def test_a_read_that_gives_back_too_little_is_a_failure(self):
        step = workloads.Step("read", "read", workloads.WARM, lambda scene: None, moves="tree")
        filesystem = mock.Mock(daemon=None)
        scene = workloads.Scene(self.at, workloads.Inputs({}, {"tree": 1 << 40}, {}), "")
        with self.assertRaisesRegex(workloads.Trouble, "too little"):
            measure._step(step, filesystem, scene)


if __name__ == "__main__":
    unittest.main()
