"""Rendering of the templates beside the code that uses them."""

import pathlib

import jinja2


def render(template: pathlib.Path, *, autoescape: bool = True, **values: object) -> str:
    """Returns a rendered template; a missing value is an error.

    Args:
      template: Path of the template, which may include others of its folder.
      autoescape: False for templates that are not HTML.
      **values: Values by their names in the template.
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
