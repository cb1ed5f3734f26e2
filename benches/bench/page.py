"""The report as one page."""


def page(report):
    return ""
