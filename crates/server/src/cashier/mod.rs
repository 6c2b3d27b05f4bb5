//! The cashier: the page on which a payer sees what is owed, to whom, and pays it.
//!
//! Values in, HTML out. It reads no clock, no store and no request: the handlers fill a
//! [`CashierView`], serve what [`asset`] answers, and put the headers on.

mod lang;
mod link;
mod page;
mod qr;
mod text;

pub use lang::Lang;
pub use page::{
    CONTENT_SECURITY_POLICY, CashierState, CashierView, Choice, MethodView, asset, not_found,
    render, unavailable,
};
