//! A QR code as an SVG small enough for a page of 30 KB.

use maud::{Markup, html};
use qrcode::{Color, EcLevel, QrCode};

/// The empty border a scanner needs, in modules: ISO/IEC 18004 §6.3.8.
const QUIET: i32 = 4;

/// Longer texts take the lowest error correction: a screen has no scratches, and fewer, larger
/// modules scan better than redundant small ones.
const LONG: usize = 160;

/// Codes with more modules a side are drawn larger, so that a module stays over 2.5 pixels.
const DENSE: usize = 57;

/// Draws `text`; `None` if it fits no QR code. Always black on white, also in dark mode, because
/// many wallets do not read inverted codes.
pub(super) fn svg(text: &str, label: &str) -> Option<Markup> {
    let level = if text.len() <= LONG { EcLevel::M } else { EcLevel::L };
    let code = QrCode::with_error_correction_level(text, level).ok()?;
    let width = code.width();
    let outer = i32::try_from(width).ok()? + 2 * QUIET;
    let path = strokes(&code.to_colors(), width);
    // A stroke along y = 0 covers -0.5 to 0.5, so the box begins half a module higher.
    let view_box = format!("-{QUIET} -{QUIET}.5 {outer} {outer}");
    Some(html! {
        svg .qr .dense[width > DENSE] data-testid="qr" role="img" aria-label=(label) viewBox=(view_box)
            shape-rendering="crispEdges" {
            path fill="#fff" d={ "M-9-9h999v999H-9z" } {}
            path stroke="#000" d=(path) {}
        }
    })
}

/// One stroke a run of dark modules, moves relative within a row: 6 bytes a run instead of 20.
fn strokes(modules: &[Color], width: usize) -> String {
    let mut path = String::new();
    for (y, row) in modules.chunks(width).enumerate() {
        let (mut x, mut pen) = (0, None);
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] == Color::Dark {
                match pen {
                    None => path.push_str(&format!("M{x} {y}")),
                    Some(end) => path.push_str(&format!("m{} 0", x - end)),
                }
                path.push_str(&format!("h{}", run.len()));
                pen = Some(x + run.len());
            }
            x += run.len();
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws the path on a grid again; nothing may be lost on the way.
    #[test]
    fn strokes_cover_exactly_the_dark_modules() {
        let code = QrCode::new("weixin://wxpay/bizpayurl?pr=abcdefg").unwrap();
        let (modules, width) = (code.to_colors(), code.width());
        let mut drawn = vec![Color::Light; modules.len()];
        let path = strokes(&modules, width);
        let mut numbers = path.split(['M', 'm', 'h', ' ']).skip(1).map(|it| it.parse().unwrap());
        let mut number = || -> usize { numbers.next().unwrap() };
        let (mut x, mut y) = (0, 0);
        for command in path.matches(['M', 'm', 'h']) {
            match command {
                "M" => (x, y) = (number(), number()),
                "m" => (x, _) = (x + number(), number()),
                _ => {
                    let length = number();
                    drawn[y * width + x..][..length].fill(Color::Dark);
                    x += length;
                }
            }
        }
        assert!(drawn == modules);
    }

    #[test]
    fn a_text_beyond_every_code_is_refused() {
        assert!(svg(&"x".repeat(512), "").is_some());
        assert!(svg(&"x".repeat(3000), "").is_none());
    }
}
