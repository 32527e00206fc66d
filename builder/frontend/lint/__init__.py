"""The checks: what a Dockerfile says that its author may not have meant (FEATURES.md 1.3, P07).

One small function for each rule, grouped by topic; `registry` lists the rules, `linter` runs those that are
wanted, `scene` is what they look at. docs/checks/ has a page for each.
"""
