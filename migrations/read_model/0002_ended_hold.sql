-- Holds ended by usage that names them: the first that was applied. Whether a hold in control is still open is asked
-- here, in the statement that reads the figures, so that it is seen as a hold or as usage and never as neither.
create table ended_hold (
    account_id      text  collate "C" not null,
    reservation_id  text  collate "C" not null,
    event_id        text  collate "C" not null,
    primary key (account_id, reservation_id)
);
