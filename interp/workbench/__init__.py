"""The workbench: a page on which one reads, steers, edits and traces a model, and every action is a line of Python.

1. `session`: the model and what comes with it; `made`: graphs and files; `search`: latents by words; `log`: the session
   as Python; `archive`: as one file.
2. `arguments`, `actions`: what a page can ask for; `reading`, `steering`, `editing`, `tracing`, `circuits`, `browsing`,
   `exporting`: each a call of public functions; `progress`: what they share.
3. `jobs`: one queue per model, with events and stopping; `security`: who may ask; `server`: the routes.
4. `workbench`: opening it from a notebook, a script or `interp workbench`; `page`: what the browser shows.
"""

from hooks.border import guard
from interp.workbench.workbench import Workbench, open

__all__ = ["Workbench", "open"]

guard(globals(), __all__)
