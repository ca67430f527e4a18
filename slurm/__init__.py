"""Where and how a job runs: sites, resources, submission through submitit, and files on shared storage."""
