"""The stages of a medscale run: every public module here is one stage, a config class and run()."""
