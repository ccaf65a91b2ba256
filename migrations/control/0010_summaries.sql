-- Each clean-up reads the block ranges whole that these indexes have not summarised yet. Without this setting they wait
-- for the next vacuum, which comes after a fifth of the table is new.
alter index control.hold_created    set (autosummarize = on);
alter index control.decision_logged set (autosummarize = on);
