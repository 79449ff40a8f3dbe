"""A model on one HTML page, to look at and to send to others."""

from keras_l0.page.report import HtmlReport, SizeRow, html_report

__all__ = ["HtmlReport", "SizeRow", "html_report"]
