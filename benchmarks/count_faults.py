"""The table of docs/benchmarks/faults.md from a run of the tests.

WSSS_STORM=1 pytest tests/faults --junitxml storm.xml
pytest tests/test_escapes.py tests/test_locks.py tests/test_processes.py tests/engine/test_stop.py tests/weights \\
    tests/sources --junitxml inputs.xml
python benchmarks/count_faults.py storm.xml inputs.xml    # of a test that is in two files the later one counts
"""

import re
import sys
import xml.etree.ElementTree as ElementTree

CLASSES = {  # the first that the name of a test matches: (title, what one trial is)
    r"test_many_ranks": "one of two ranks that is killed, asked to stop, or cannot write",
    r"test_storm.*kills": "kills at chance moments of the pipeline, six in each",
    r"test_storm.*signals": "signals at chance moments of the pipeline, three in each",
    r"test_(more_)?phases|test_signals|test_stop": "a signal in a phase of a command",
    r"test_long_items": "a stop within one item",
    r"test_limits.*(BREAK|end_at_a_size)": "a write that breaks off in the middle",
    r"test_limits.*write": "a write that fails: disk full, disk broken",
    r"test_limits.*(files|memory|limits)|test_errors": "few open files, little memory, other lacks of the machine",
    r"at_one_place|writer|test_locks": "two and eight processes at one place",
    r"test_streams": "closed, full and unread streams",
    r"test_loader|test_training_faults|test_processes": "workers that die, hang or fail; trainings that are hit",
    r"test_run_records|test_outputs|test_infer_journal|test_prepare_again": (
        "records and outputs that are damaged, gone, of other settings or half written"
    ),
    r"tests\.faults": "other faults",
    r"tests\.(test_escapes|weights|sources)": "hostile and mistaken inputs: tables, masks, archives, weights, names",
}


def main(files: list[str]) -> None:
    """Print the table of tests by class: tried, survived; what is skipped was not tried."""
    trials = {}
    for file in files:
        for case in ElementTree.parse(file).getroot().iter("testcase"):
            if case.find("skipped") is None:
                failed = case.find("failure") is not None or case.find("error") is not None
                trials[f"{case.get('classname')}.{case.get('name')}"] = not failed
    counts = {title: [0, 0] for title in CLASSES.values()}
    for name, survived in trials.items():
        title = next((title for pattern, title in CLASSES.items() if re.search(pattern, name)), None)
        if title is not None:
            counts[title][0] += 1
            counts[title][1] += survived
    print("| what is tried | tried | survived |\n|---|---|---|")
    for title, (tried, survived) in counts.items():
        if tried:
            print(f"| {title} | {tried} | {survived} |")
    print(f"| all | {sum(t for t, _ in counts.values())} | {sum(s for _, s in counts.values())} |")


if __name__ == "__main__":
    main(sys.argv[1:])
