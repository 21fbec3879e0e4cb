//! Weight names: one table an architecture, read in both directions.
//!
//! A rule says where a parameter of ours, or all parameters of one of our small layers, live in the published checkpoint. `{}`
//! stands for a layer number; where blocks are shared in groups, `{group}` and `{inner}` stand for the group and the block within
//! it. Several of our parameters may be parts of one published tensor (GPT's packed query, key and value).

use std::collections::BTreeMap;

use burn::tensor::DType;
use bytes::Bytes;
use malmoi_nn::Sharing;
use malmoi_nn::parameters::{ParameterInfo, ParameterValues};

/// How a parameter of ours lies in the published tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The same values in the same order.
    Whole,
    /// A matrix stored `[d_in, d_out]` where ours is `[d_out, d_in]`.
    Transposed,
    /// Column block `index` of `of` of a matrix stored `[d_in, of · d_out]`; for vectors, slice `index` of `of`.
    Block {
        /// Which block, from 0.
        index: usize,
        /// How many blocks.
        of: usize,
    },
    /// Row block `index` of `of` of a matrix stored `[of · d_out, d_in]`; for vectors, slice `index` of `of`.
    Rows {
        /// Which block, from 0.
        index: usize,
        /// How many blocks.
        of: usize,
    },
}

/// What a rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One parameter.
    Parameter,
    /// The weight and bias of a dense layer, or scale and shift of a norm, which are published as `weight` and `bias`.
    Layer,
}

/// One line of a table: our name, the published name and the layout there.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Our name, such as `layers.{}.attention.query`.
    pub ours: &'static str,
    /// The published name, such as `encoder.layer.{}.attention.self.query`.
    pub theirs: &'static str,
    /// The layout; vectors of a transposed layer are whole.
    pub part: Part,
    /// One parameter or a layer.
    pub scope: Scope,
}

/// A line of a table for one parameter.
pub const fn rule(ours: &'static str, theirs: &'static str, part: Part) -> Rule {
    Rule {
        ours,
        theirs,
        part,
        scope: Scope::Parameter,
    }
}

/// A line of a table for a dense layer or a norm, stored as ours is.
pub const fn layer(ours: &'static str, theirs: &'static str) -> Rule {
    layer_in(ours, theirs, Part::Whole)
}

/// A line of a table for a dense layer or a norm.
pub const fn layer_in(ours: &'static str, theirs: &'static str, part: Part) -> Rule {
    Rule {
        ours,
        theirs,
        part,
        scope: Scope::Layer,
    }
}

/// A rule that covers a parameter.
struct Matched {
    rule: Rule,
    /// The number that `{}` stands for.
    block: Option<usize>,
    /// What follows the published name of a layer.
    leaf: &'static str,
}

impl Rule {
    /// How this rule covers `parameter`, if it does.
    fn covers(&self, parameter: &str) -> Option<Matched> {
        let (name, leaf) = match self.scope {
            Scope::Parameter => (parameter, ""),
            Scope::Layer => {
                let (stem, last) = parameter.rsplit_once('.')?;
                let leaf = match last {
                    "gamma" | "weight" => ".weight",
                    "beta" | "bias" => ".bias",
                    _ => return None,
                };
                (stem, leaf)
            }
        };
        Some(Matched {
            rule: *self,
            block: captures(self.ours, name)?,
            leaf,
        })
    }
}

/// A table together with the prefix that this checkpoint puts before the names of the base model.
#[derive(Clone, Debug)]
pub struct NameTable {
    rules: Vec<Rule>,
    prefix: String,
    /// Rules whose published name starts with one of these carry no prefix: the heads.
    heads: &'static [&'static str],
    /// Blocks of a group, for `{group}` and `{inner}`.
    n_inner: usize,
    /// What our names of a stack of shared blocks start with, and the block that runs at each depth.
    orders: Vec<(&'static str, Vec<usize>)>,
}

/// Where a parameter is found: the published name, its shape there and the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Published name.
    pub name: String,
    /// Shape of the published tensor.
    pub shape: Vec<usize>,
    /// Layout of our parameter in it.
    pub part: Part,
}

impl NameTable {
    /// A table whose base-model names start with `prefix`, except those under one of `heads`.
    pub fn new(rules: &[&[Rule]], prefix: &str, heads: &'static [&'static str]) -> Self {
        Self {
            rules: rules.concat(),
            prefix: prefix.to_owned(),
            heads,
            n_inner: 1,
            orders: Vec::new(),
        }
    }

    /// The same table for blocks that are shared across `n_layers` layers. Names with `{group}` are stored once; others stand
    /// for a layer each, so that a shared block is stored as often as it runs. `stack` is what our names of the blocks start with, such
    /// as `decoder.layers.`.
    pub fn sharing_in(mut self, stack: &'static str, sharing: Sharing, n_layers: usize) -> Self {
        if let Sharing::Groups { n_inner, .. } = sharing {
            self.n_inner = n_inner;
            self.orders.push((stack, sharing.order(n_layers)));
        }
        self
    }

    /// The first of [`Self::places`].
    pub fn place(&self, parameter: &ParameterInfo) -> Place {
        self.places(parameter).swap_remove(0)
    }

    /// Where `parameter` lives: its first place, and further ones with the same content.
    ///
    /// # Panics
    /// When no rule covers it: a table that misses a parameter of its own model is a broken invariant.
    pub fn places(&self, parameter: &ParameterInfo) -> Vec<Place> {
        let matched = (self.rules.iter()).find_map(|rule| rule.covers(&parameter.name));
        let Some(matched) = matched else {
            panic!(
                "no published name for parameter {}: complete the table of its architecture",
                parameter.name
            )
        };
        let mut orders = self.orders.iter();
        let order = orders.find(|(stack, _)| matched.rule.ours.starts_with(stack));
        let depths = match (matched.block, order) {
            (Some(block), Some((_, order))) if matched.rule.theirs.contains("{}") => {
                let all = 0..order.len();
                all.filter(|depth| order[*depth] == block).collect()
            }
            (block, _) => vec![block.unwrap_or_default()],
        };
        let depths = depths.into_iter();
        depths
            .map(|depth| self.place_at(parameter, &matched, depth))
            .collect()
    }

    fn place_at(&self, parameter: &ParameterInfo, matched: &Matched, depth: usize) -> Place {
        let part = matched.rule.part;
        let mut name = matched.rule.theirs.to_owned();
        if let Some(block) = matched.block {
            name = name
                .replace("{}", &depth.to_string())
                .replace("{group}", &(block / self.n_inner).to_string())
                .replace("{inner}", &(block % self.n_inner).to_string());
        }
        name.push_str(matched.leaf);
        if !self.heads.iter().any(|head| name.starts_with(head)) {
            name.insert_str(0, &self.prefix);
        }
        let shape = match (part, parameter.shape.as_slice()) {
            (Part::Whole, shape) => shape.to_vec(),
            (Part::Transposed, [n]) => vec![*n],
            (Part::Rows { of, .. }, [d_out, rest @ ..]) => [&[of * d_out], rest].concat(),
            (Part::Transposed, [d_out, d_in]) => vec![*d_in, *d_out],
            (Part::Block { of, .. }, [d_out, d_in]) => vec![*d_in, of * d_out],
            (Part::Block { of, .. }, [d_out]) => vec![of * d_out],
            (part, shape) => panic!(
                "{part:?} does not fit parameter {} of shape {shape:?}",
                parameter.name
            ),
        };
        Place { name, shape, part }
    }

    /// Published tensors for our parameters, in the order of their first part: name, shape, values.
    pub fn publish<'a>(
        &self,
        parameters: impl IntoIterator<Item = &'a (ParameterInfo, Vec<f32>)>,
    ) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        let mut index = BTreeMap::new();
        for (info, values) in parameters {
            for place in self.places(info) {
                let at = *index.entry(place.name.clone()).or_insert_with(|| {
                    tensors.push((
                        place.name.clone(),
                        place.shape.clone(),
                        vec![0.0; place.shape.iter().product()],
                    ));
                    tensors.len() - 1
                });
                scatter(info, values, place.part, &mut tensors[at].2);
            }
        }
        tensors
    }
}

/// Our parameter out of the published tensor's values.
pub fn gather(info: &ParameterInfo, part: Part, published: &[f32]) -> Vec<f32> {
    match (part, info.shape.as_slice()) {
        (Part::Block { index, .. }, [d_out]) => {
            published[index * d_out..(index + 1) * d_out].to_vec()
        }
        (Part::Rows { index, .. }, _) => {
            published[index * info.len()..(index + 1) * info.len()].to_vec()
        }
        (Part::Transposed | Part::Block { .. }, [d_out, d_in]) => {
            let (first, width) = columns(part, *d_out);
            let mut values = vec![0.0; d_out * d_in];
            let shape = [*d_out, *d_in];
            transpose(&published[first..], width, &mut values, *d_in, shape);
            values
        }
        _ => published.to_vec(),
    }
}

/// Our matrix as a part of the published tensor's values, which are not copied.
pub fn part(info: &ParameterInfo, part: Part, published: Bytes, format: DType) -> ParameterValues {
    let [d_out, d_in] = info.shape[..] else {
        panic!("{} is no matrix", info.name)
    };
    let (start, strides) = match part {
        Part::Whole => (0, [d_in, 1]),
        Part::Rows { index, .. } => (index * info.len(), [d_in, 1]),
        Part::Transposed | Part::Block { .. } => {
            let (first, width) = columns(part, d_out);
            (first, [1, width])
        }
    };
    ParameterValues::Part {
        bytes: published,
        format,
        start,
        strides,
    }
}

/// Writes element (j, i) of `from` as element (i, j) of `to` [rows, cols]. The strides are the distances between rows.
fn transpose(
    from: &[f32],
    from_stride: usize,
    to: &mut [f32],
    to_stride: usize,
    [rows, cols]: [usize; 2],
) {
    // A few rows of the result stay in the cache until they are full, and each visit fills a line of them.
    const ROWS: usize = 32;
    const LINE: usize = 16;
    for first in (0..rows).step_by(ROWS) {
        for begin in (0..cols).step_by(LINE) {
            let end = cols.min(begin + LINE);
            for i in first..rows.min(first + ROWS) {
                let row = &mut to[i * to_stride..][begin..end];
                let column = from[begin * from_stride + i..].iter().step_by(from_stride);
                for (to, &from) in row.iter_mut().zip(column) {
                    *to = from;
                }
            }
        }
    }
}

fn scatter(info: &ParameterInfo, values: &[f32], part: Part, published: &mut [f32]) {
    match (part, info.shape.as_slice()) {
        (Part::Block { index, .. }, [d_out]) => {
            published[index * d_out..(index + 1) * d_out].copy_from_slice(values)
        }
        (Part::Rows { index, .. }, _) => {
            published[index * info.len()..(index + 1) * info.len()].copy_from_slice(values)
        }
        (Part::Transposed | Part::Block { .. }, [d_out, d_in]) => {
            let (first, width) = columns(part, *d_out);
            let shape = [*d_in, *d_out];
            transpose(values, *d_in, &mut published[first..], width, shape);
        }
        _ => published.copy_from_slice(values),
    }
}

/// First column of our block and the width of a published row.
fn columns(part: Part, d_out: usize) -> (usize, usize) {
    match part {
        Part::Block { index, of } => (index * d_out, of * d_out),
        _ => (0, d_out),
    }
}

/// Matches `name` against `pattern` by dot-separated parts; `{}` matches a number, which is returned.
fn captures(pattern: &str, name: &str) -> Option<Option<usize>> {
    let (mut layer, mut parts) = (None, name.split('.'));
    for expected in pattern.split('.') {
        let part = parts.next()?;
        if expected == "{}" {
            layer = Some(part.parse().ok()?);
        } else if expected != part {
            return None;
        }
    }
    parts.next().is_none().then_some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &[Rule] = &[
        rule(
            "layers.{}.q.weight",
            "h.{}.c.weight",
            Part::Block { index: 0, of: 2 },
        ),
        rule(
            "layers.{}.k.weight",
            "h.{}.c.weight",
            Part::Block { index: 1, of: 2 },
        ),
        rule(
            "layers.{}.k.bias",
            "h.{}.c.bias",
            Part::Block { index: 1, of: 2 },
        ),
        rule("head.weight", "score.weight", Part::Transposed),
    ];

    fn info(name: &str, shape: &[usize]) -> ParameterInfo {
        ParameterInfo {
            name: name.into(),
            shape: shape.into(),
        }
    }

    #[test]
    fn packed_blocks_survive_a_round_trip() {
        let table = NameTable::new(&[RULES], "base.", &["score"]);
        let q = (
            info("layers.3.q.weight", &[2, 3]),
            (0..6).map(|x| x as f32).collect::<Vec<_>>(),
        );
        let k = (
            info("layers.3.k.weight", &[2, 3]),
            (6..12).map(|x| x as f32).collect::<Vec<_>>(),
        );
        let published = table.publish(&[q.clone(), k.clone()]);
        assert_eq!(published.len(), 1);
        let (name, shape, values) = &published[0];
        assert_eq!(
            (name.as_str(), shape.as_slice()),
            ("base.h.3.c.weight", &[3, 4][..])
        );
        // Row i holds input i: the two outputs of q, then the two of k.
        assert_eq!(
            values,
            &[0.0, 3.0, 6.0, 9.0, 1.0, 4.0, 7.0, 10.0, 2.0, 5.0, 8.0, 11.0]
        );
        for (info, original) in [q, k] {
            assert_eq!(gather(&info, table.place(&info).part, values), original);
        }
    }

    #[test]
    fn a_part_of_published_bytes_is_what_is_gathered() {
        let w = info("w", &[3, 4]);
        for (places, of) in [
            (Part::Whole, 1),
            (Part::Transposed, 1),
            (Part::Block { index: 1, of: 3 }, 3),
            (Part::Rows { index: 2, of: 3 }, 3),
        ] {
            let published: Vec<f32> = (0..12 * of).map(|x| x as f32).collect();
            let ParameterValues::Part { start, strides, .. } =
                part(&w, places, Bytes::new(), DType::F32)
            else {
                panic!("a part")
            };
            let element = |at: usize| published[start + at / 4 * strides[0] + at % 4 * strides[1]];
            let values: Vec<f32> = (0..12).map(element).collect();
            assert_eq!(values, gather(&w, places, &published), "{places:?}");
        }
    }

    #[test]
    fn transposed_parts_of_any_size_are_gathered_and_put_back_element_by_element() {
        for (d_out, d_in, of) in [
            (1, 1, 1),
            (3, 0, 1),
            (5, 17, 3),
            (32, 16, 2),
            (70, 33, 3),
            (33, 100, 1),
        ] {
            let published: Vec<f32> = (0..d_in * of * d_out).map(|x| x as f32).collect();
            let mut back = vec![-1.0; published.len()];
            for index in 0..of {
                let part = Part::Block { index, of };
                let values = gather(&info("w", &[d_out, d_in]), part, &published);
                let expected: Vec<f32> = (0..d_out * d_in)
                    .map(|at| published[at % d_in * of * d_out + index * d_out + at / d_in])
                    .collect();
                assert_eq!(values, expected, "{d_out} x {d_in}, part {index} of {of}");
                scatter(&info("w", &[d_out, d_in]), &values, part, &mut back);
            }
            assert_eq!(back, published, "{d_out} x {d_in}, {of} parts");
        }
    }

    #[test]
    fn heads_carry_no_prefix_and_transposes_swap_the_shape() {
        let table = NameTable::new(&[RULES], "base.", &["score"]);
        let place = table.place(&info("head.weight", &[2, 5]));
        assert_eq!(
            (place.name.as_str(), place.shape),
            ("score.weight", vec![5, 2])
        );
    }

    #[test]
    fn shared_blocks_are_numbered_by_group_where_names_have_groups() {
        let rules: &[Rule] = &[layer("layers.{}.q", "groups.{group}.layers.{inner}.q")];
        let sharing = Sharing::Groups {
            n_groups: 2,
            n_inner: 3,
        };
        let table = NameTable::new(&[rules], "", &[]).sharing_in("layers.", sharing, 8);
        let places = table.places(&info("layers.4.q.weight", &[2, 2]));
        assert_eq!(places.len(), 1);
        assert_eq!(places[0].name, "groups.1.layers.1.q.weight");
    }

    #[test]
    fn shared_blocks_are_stored_at_every_depth_where_each_layer_has_a_name() {
        let rules: &[Rule] = &[layer("layers.{}.q", "layer.{}.q")];
        let sharing = Sharing::Groups {
            n_groups: 2,
            n_inner: 1,
        };
        let table = NameTable::new(&[rules], "", &[]).sharing_in("layers.", sharing, 4);
        let q = (info("layers.1.q.bias", &[1]), vec![5.0]);
        let published = table.publish(&[q]);
        let names: Vec<&str> = published.iter().map(|tensor| tensor.0.as_str()).collect();
        assert_eq!(names, ["layer.2.q.bias", "layer.3.q.bias"]);
        assert!(published.iter().all(|tensor| tensor.2 == [5.0]));
    }

    #[test]
    fn a_layer_rule_covers_weight_and_bias_and_packs_rows() {
        const RULES: &[Rule] = &[
            layer("layers.{}.norm", "h.{}.ln"),
            layer_in("layers.{}.up", "h.{}.wi", Part::Rows { index: 1, of: 2 }),
            layer_in("down", "wo", Part::Transposed),
        ];
        let table = NameTable::new(&[RULES], "", &[]);
        let place = |name: &str, shape: &[usize]| {
            let place = table.place(&info(name, shape));
            (place.name, place.shape)
        };
        assert_eq!(
            place("layers.7.norm.gamma", &[3]),
            ("h.7.ln.weight".into(), vec![3])
        );
        assert_eq!(
            place("layers.7.norm.beta", &[3]),
            ("h.7.ln.bias".into(), vec![3])
        );
        assert_eq!(
            place("layers.0.up.weight", &[2, 3]),
            ("h.0.wi.weight".into(), vec![4, 3])
        );
        assert_eq!(place("down.bias", &[3]), ("wo.bias".into(), vec![3]));
        assert_eq!(
            place("down.weight", &[3, 2]),
            ("wo.weight".into(), vec![2, 3])
        );
        let up = (info("layers.0.up.weight", &[1, 2]), vec![5.0, 6.0]);
        let published = table.publish(std::slice::from_ref(&up));
        assert_eq!(published[0].2, [0.0, 0.0, 5.0, 6.0]);
        let part = table.place(&up.0).part;
        assert_eq!(gather(&up.0, part, &published[0].2), up.1);
    }

    #[test]
    fn a_vector_block_is_a_slice() {
        let k = info("layers.0.k.bias", &[2]);
        assert_eq!(
            gather(&k, Part::Block { index: 1, of: 2 }, &[1.0, 2.0, 3.0, 4.0]),
            [3.0, 4.0]
        );
    }
}
