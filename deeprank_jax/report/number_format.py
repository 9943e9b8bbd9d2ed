"""Number formats of the page: short, and as people write numbers."""

_TIMES = "\N{MULTIPLICATION SIGN}"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float) -> str:
    """Returns a number in at most three digits, e.g. 0.25, 0.00032 or 10⁻⁸.

    Args:
      value: Finite number; from a thousand to a million it is written in full.
    """
    size = abs(value)
    if size == 0:
        return "0"
    if 0.001 <= size < 999.5:
        text = f"{value:.3g}"
    elif 0.0001 <= size < 0.001:
        text = f"{value:.2g}"
    elif 999.5 <= size < 999_999.5:
        text = f"{value:,.0f}"
    else:
        mantissa, exponent = f"{value:.1e}".split("e")
        power = f"10{str(int(exponent)).translate(_RAISED)}"
        mantissa = mantissa.removesuffix(".0")
        sign = mantissa.removesuffix("1")
        text = sign + power if sign in ("", "-") else f"{mantissa}{_TIMES}{power}"
    return text.replace("-", "\N{MINUS SIGN}")


def with_sign(text: str) -> str:
    """Returns a formatted number with its sign; 0 has none."""
    size = text.removeprefix("\N{MINUS SIGN}")
    if not any(digit in size for digit in "123456789"):
        return size
    return text if text != size else f"+{text}"
