//! A merchant as use cases need it.

use kernel::{BasisPoints, MerchantId};
use payments::{LatePolicy, Mode};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merchant {
    pub id: MerchantId,
    pub name: String,
    /// Application ids that its orders may name.
    pub appids: Vec<String>,
    /// What we keep of each payment.
    pub fee_rate: BasisPoints,
    /// For native and h5; jsapi and app are always eager.
    pub mode: Mode,
    pub late: LatePolicy,
    /// The certificate whose key signs the merchant's requests.
    pub certificate_pem: String,
    pub certificate_serial: String,
    /// Encrypted by the vault; only the edge can open it.
    pub sealed_apiv3_key: String,
    pub active: bool,
}
