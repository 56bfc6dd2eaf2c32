"""The alerts, tried out: each rule by promtool, the runbook word by word, and the whole in a drill."""
