"""The main job end to end on the bundled model: `from interp.demo.run import run`, or `interp demo`."""
