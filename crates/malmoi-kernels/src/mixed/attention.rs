//! Attention on bf16 values.

use super::bf16;
use super::convert::{to_bf16, to_f32};
use crate::attention::{self, AttentionShape, Gradients, Saved};
use crate::scratch::{Scratch, scratch};
#[cfg(target_arch = "x86_64")]
use crate::threads::SharedMut;

/// [`attention::attention_forward`] with queries, keys, values and output in bf16; scores, softmax and sums in f32. On the tile unit
/// the probabilities are rounded to bf16 before they multiply the values.
///
/// # Panics
/// When lengths disagree.
pub fn attention_forward(
    shape: &AttentionShape,
    q: &[bf16],
    k: &[bf16],
    v: &[bf16],
    out: &mut [bf16],
    lse: &mut [f32],
) {
    shape.check_forward([q.len(), k.len(), v.len()], out.len(), lse.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = super::tiles() {
        let work = crate::amx::Forward {
            shape,
            q,
            k,
            v,
            out: SharedMut::new(out),
            lse: SharedMut::new(lse),
        };
        crate::amx::forward(amx, work);
        return;
    }
    let mut wide_out = scratch(out.len());
    let [q, k, v] = [q, k, v].map(widened);
    attention::attention_forward(shape, &q, &k, &v, &mut wide_out, lse);
    to_bf16(&wide_out, out);
}

/// [`attention::attention_backward`] in bf16; the gradient of a bias is in f32.
///
/// # Panics
/// When lengths disagree.
pub fn attention_backward(
    shape: &AttentionShape,
    saved: &Saved<bf16>,
    dout: &[bf16],
    gradients: Gradients<bf16>,
) {
    shape.check_backward(saved, dout, &gradients);
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = super::tiles() {
        let work = crate::amx::Backward {
            shape,
            q: saved.q,
            k: saved.k,
            v: saved.v,
            out: saved.out,
            lse: saved.lse,
            dout,
            dq: SharedMut::new(gradients.dq),
            dk: SharedMut::new(gradients.dk),
            dv: SharedMut::new(gradients.dv),
            dbias: gradients.dbias.map(|dbias| {
                dbias.fill(0.0);
                SharedMut::new(dbias)
            }),
        };
        crate::amx::backward(amx, work);
        return;
    }
    let [q, k, v, out, dout] = [saved.q, saved.k, saved.v, saved.out, dout].map(widened);
    let wide = Saved {
        q: &q,
        k: &k,
        v: &v,
        out: &out,
        lse: saved.lse,
    };
    let [mut dq, mut dk, mut dv] =
        [gradients.dq.len(), gradients.dk.len(), gradients.dv.len()].map(scratch);
    let wide_gradients = Gradients {
        dq: &mut dq[..],
        dk: &mut dk[..],
        dv: &mut dv[..],
        dbias: gradients.dbias,
    };
    attention::attention_backward(shape, &wide, &dout, wide_gradients);
    to_bf16(&dq, gradients.dq);
    to_bf16(&dk, gradients.dk);
    to_bf16(&dv, gradients.dv);
}

fn widened(x: &[bf16]) -> Scratch {
    let mut wide = scratch(x.len());
    to_f32(x, &mut wide);
    wide
}
