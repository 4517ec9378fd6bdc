"""What is installed on a machine and whether the machines of a run can work together: doctor and preflight.

doctor     `examine` collects rows (`library_findings`, `machine_findings`) and `table` prints them; `probe` tries torch
           in a process of its own
preflight  `rounds` is the course of it, over the board of `gather` with `clocks` and `limits`; `place` and `ports` say
           who and where a rank is; `node_report`, `run_files` and `shared_folder` are what a rank looks at,
           `all_reduce` what all do together, `verdict` and `all_reduce_verdict` what rank 0 makes of it
both       `libraries`, `try_import`, `gpus`, `storage`
"""
