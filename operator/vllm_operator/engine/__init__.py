"""Generic controller machinery: work queue, cache, leader lease, execution of plans. Knows no CRD."""
