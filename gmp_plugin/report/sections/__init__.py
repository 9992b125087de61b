"""The sections of an experiment's report, as blocks of `page`."""
