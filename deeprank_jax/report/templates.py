"""Fills in the templates that lie beside the code that uses them."""

import pathlib
from typing import Any

import jinja2


def render(template: pathlib.Path, *, autoescape: bool = True, **values: Any) -> str:
    """Returns a template filled in; a value that it lacks is an error.

    Args:
      template: its file; others of that folder may be part of it.
      autoescape: False for what is not HTML.
      **values: by the template's names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template.name).render(values)
