"""Reports on finished and unfinished runs, made from their folders alone.

`run_data` reads a folder, and `groups` puts comparable runs together. `page` writes the HTML page, with
the figures of `gallery` and the tables of `result_tables` and `significance`.
"""
