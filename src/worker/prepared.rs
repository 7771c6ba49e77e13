//! Prepared transactions: nobody is told of their end, so it is found by looking.

use crate::pg::{bgw, spi};

/// Whether there are any in this database.
pub fn any_prepared() -> bool {
    bgw::transaction(
        |_| None,
        || {
            spi::read::<bool>(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database())",
                &[],
            )
        },
    )
    .is_ok_and(|any| any == Some(true))
}
