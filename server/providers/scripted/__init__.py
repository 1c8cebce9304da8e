"""The scripted model: ships with the product, for demonstrations and for tests without a key.

It never stands in silently for a real one: it is used only where it was asked for by name.
"""

from server.providers.scripted.model import ScriptedModel
from server.providers.scripted.provider import ScriptedProvider

__all__ = ["ScriptedModel", "ScriptedProvider"]
