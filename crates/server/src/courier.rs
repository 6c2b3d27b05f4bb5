//! Notifications as merchants know them: encrypted with their APIv3 key, signed with our key.

use crate::clock;
use crate::merchants::Merchants;
use crate::settings::Current;
use crate::v3::wire;
use app::{Courier, Delivery, Merchant, Notification, NotificationEvent, Subject};
use std::sync::Arc;
use wechatpay::headers::{self, SignatureHeaders};
use wechatpay::notification::{Envelope, EventType};

pub struct MerchantCourier {
    settings: Arc<Current>,
    merchants: Arc<Merchants>,
}

impl MerchantCourier {
    pub fn new(settings: Arc<Current>, merchants: Arc<Merchants>) -> MerchantCourier {
        MerchantCourier { settings, merchants }
    }

    async fn sealed(
        &self,
        merchant: &Merchant,
        notification: &Notification,
        subject: &Subject,
    ) -> Result<Vec<u8>, String> {
        let known = self.merchants.get(&merchant.id, clock::wall()).await;
        let known = known.map_err(|it| it.to_string())?.ok_or("the merchant is gone")?;
        let plain = match (notification.event, &subject.refund) {
            (NotificationEvent::PaymentSucceeded, _) => {
                wire::paid_transaction(&subject.payment).to_json()
            }
            (
                NotificationEvent::RefundSucceeded
                | NotificationEvent::RefundClosed
                | NotificationEvent::RefundAbnormal,
                Some(refund),
            ) => wire::refund_notice(&subject.payment, refund).to_json(),
            (
                NotificationEvent::RefundSucceeded
                | NotificationEvent::RefundClosed
                | NotificationEvent::RefundAbnormal,
                None,
            ) => return Err("its refund is gone".into()),
        };
        let nonce = &seal::random_nonce()[..12];
        let envelope = Envelope::seal(
            notification.id.as_str(),
            notification.created,
            event_type(notification.event),
            plain.as_bytes(),
            nonce,
            &known.apiv3_key,
        );
        Ok(envelope.map_err(|it| it.to_string())?.to_json().into_bytes())
    }
}

pub fn event_type(event: NotificationEvent) -> EventType {
    match event {
        NotificationEvent::PaymentSucceeded => EventType::parse("TRANSACTION.SUCCESS"),
        NotificationEvent::RefundSucceeded => EventType::parse("REFUND.SUCCESS"),
        NotificationEvent::RefundClosed => EventType::parse("REFUND.CLOSED"),
        NotificationEvent::RefundAbnormal => EventType::parse("REFUND.ABNORMAL"),
    }
}

impl Courier for MerchantCourier {
    async fn deliver(
        &self,
        merchant: &Merchant,
        notification: &Notification,
        subject: &Subject,
    ) -> Delivery {
        let body = match self.sealed(merchant, notification, subject).await {
            Ok(body) => body,
            Err(error) => {
                let body_head = String::new();
                return Delivery { status: None, duration_ms: 0, body_head, error: Some(error) };
            }
        };
        let settings = self.settings.load_full();
        let key = settings.keys.signer_for(subject.payment.verifies_with.as_deref());
        let (time, nonce) = (clock::wall().seconds(), seal::random_nonce());
        let signed = SignatureHeaders::sign(&key.signer, &key.id, time, &nonce, &body);
        let mut list = vec![(headers::CONTENT_TYPE, "application/json".to_owned())];
        list.extend(signed.pairs());
        let delivery = settings.notify.post(&notification.url, list, body).await;
        tracing::info!(
            notification = %notification.id,
            payment = %notification.payment,
            status = delivery.status,
            duration_ms = delivery.duration_ms,
            error = delivery.error,
            "notified"
        );
        delivery
    }
}
