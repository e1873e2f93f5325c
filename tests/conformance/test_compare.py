"""Tests of the comparison. They run before every tour."""

import unittest

from compare import Row, judge, steps
from normalise import Names, literals


def answered(step, answer):
    return {"step": step, "exit": 0, "outcome": "answered", "answer": answer}


def refused(step, code, message="no"):
    return {"step": step, "exit": 255, "outcome": "refused", "code": code, "message": message}


def paths(ours, moto):
    return [(d.path, d.ours, d.moto) for d in steps([ours], [moto])]


def row(**fields):
    return Row({"what": "w", "step": "*", "path": "*", "right": "both", "source": "s"} | fields)


class Compare(unittest.TestCase):
    def test_alike(self):
        entry = answered("a", {"X": [{"Key": "k", "Value": "v"}]})
        self.assertEqual(paths(entry, entry), [])

    def test_values_and_absence(self):
        found = paths(answered("a", {"X": {"Y": 1}}), answered("a", {"X": {"Y": True}, "Z": "z"}))
        self.assertEqual(found, [("X.Y", "1", "true"), ("Z", "(absent)", "z")])

    def test_members_are_told_apart_by_their_keys(self):
        ours, moto = [{"Key": "a"}, {"Key": "b", "V": 1}], [{"Key": "b", "V": 2}]
        found = paths(answered("a", {"L": ours}), answered("a", {"L": moto}))
        self.assertEqual(found, [("L[]", "Key=a", "(absent)"), ("L[].V", "1", "2")])

    def test_members_with_one_key_are_still_counted(self):
        found = paths(answered("a", {"L": [{"Key": "a"}, {"Key": "a"}]}), answered("a", {"L": [{"Key": "a"}]}))
        self.assertEqual(found, [("L[]", "Key=a again", "(absent)")])

    def test_refusals(self):
        self.assertEqual(paths(refused("a", "C"), answered("a", {})), [("outcome", "C", "answered")])
        self.assertEqual(paths(refused("a", "C", "x"), refused("a", "C", "y")), [("message", "x", "y")])

    def test_a_step_that_fails_on_both_sides_proves_nothing(self):
        failed = {"step": "a", "exit": 255, "outcome": "failed", "message": "usage"}
        self.assertEqual(paths(failed, failed), [("proves nothing", "usage", "usage")])


class Judge(unittest.TestCase):
    def setUp(self):
        self.found = list(steps([answered("a", {"X": [1]})], [answered("a", {"X": [2]})]))

    def test_unexplained(self):
        self.assertEqual(len(judge(self.found, [])), 1)
        self.assertEqual(len(judge(self.found, [row(moto="3")])), 3, "and the row's step and path are stale")

    def test_explained(self):
        self.assertEqual(judge(self.found, [row(step="a", path="X", ours="[1]", moto="[2]")]), [])

    def test_stale_patterns(self):
        self.assertEqual(judge(self.found, [row(step=["a", "b"])]), ["stale: w: no difference at step 'b'"])

    def test_ambiguous(self):
        self.assertEqual(len(judge(self.found, [row(), row()])), 1)


class Normalise(unittest.TestCase):
    def test_names_keep_identity(self):
        names = Names(literals("10.0.0.9 eni-00000000"))
        first = names.value({"Id": "eni-0123456789abcdef0", "Ip": "10.0.0.7", "Mine": "10.0.0.9"}, "one")
        self.assertEqual(first, {"Id": "<eni of one#1>", "Ip": "<ip of one#1>", "Mine": "10.0.0.9"})
        later = names.value(["ip-10-0-0-7.x", "10.0.0.7", "10.0.0.8", "eni-00000000"], "two")
        self.assertEqual(later, ["<ip of one#1>", "<ip of two#1>", "eni-00000000", "ip-<ip of one#1>.x"])

    def test_kinds(self):
        names = Names({})
        texts = ["02:aa:bb:cc:dd:ee", "2600:1f14::/56", "2600:1f14::5", "10.0.0.16/28"]
        texts += ["2026-01-02T03:04:05.678Z", "123456789012"]
        kinds = ["<mac of s#1>", "<ipv6 net of s#1>", "<ipv6 of s#1>", "<net of s#1>", "<time>", "<account>"]
        self.assertEqual([names.value(t, "s") for t in texts], kinds)

    def test_empty_is_as_good_as_none(self):
        self.assertEqual(Names({}).value({"A": [], "B": {}, "C": "", "D": False}, "s"), {"C": "", "D": False})


if __name__ == "__main__":
    unittest.main()
