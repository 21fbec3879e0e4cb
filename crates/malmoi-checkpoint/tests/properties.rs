//! Parsers of outside bytes return errors, they don't panic. A longer run:
//! `PROPTEST_CASES=1000000 cargo test --release -p malmoi-checkpoint --test properties`.

mod common;

use common::file_with;
use malmoi_checkpoint::{
    ConfigReader, NamedTensor, Tensors, header, parse_index, to_safetensors_bytes,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// JSON of any shape, three levels deep at most.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A header row that is often nearly right.
fn any_row() -> impl Strategy<Value = Value> {
    let dtype = prop_oneof![
        Just("F32"),
        Just("BF16"),
        Just("I64"),
        Just("U8"),
        Just("F4"),
        Just("")
    ];
    let size = prop_oneof![0u64..40, any::<u64>()];
    (dtype, prop::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..4), size.clone(), size)
        .prop_map(|(dtype, shape, begin, end)| json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}))
}

/// If a header is accepted, every tensor it lists must be readable whole.
fn read_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(tensors) = Tensors::from_bytes(bytes.to_vec(), "f") else {
        return Ok(());
    };
    let mut total = 0;
    for name in tensors.names() {
        let view = tensors.get(name).unwrap();
        prop_assert_eq!(view.len(), view.shape.iter().product::<usize>());
        total += view.bytes.len();
        let _ = (view.to_f32(), view.to_i64(), view.to_f64());
    }
    let parsed = header::parse(bytes).unwrap();
    prop_assert_eq!(parsed.data_start + total, bytes.len());
    // What we accept, the reference implementation accepts too.
    prop_assert!(safetensors::SafeTensors::deserialize(bytes).is_ok());
    Ok(())
}

/// 2,000 cases each, or as many as `PROPTEST_CASES` says.
fn bounded() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(asked.unwrap_or(2000))
    }
}

proptest! {
    #![proptest_config(bounded())]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes)?;
    }

    #[test]
    fn any_header_text_is_read_or_refused(text in ".{0,80}", data in prop::collection::vec(any::<u8>(), 0..16)) {
        read_all(&file_with(&text, &data))?;
    }

    #[test]
    fn any_table_is_read_or_refused(rows in prop::collection::vec(("[ab]", any_row()), 0..4), length in 0usize..48) {
        // Written by hand, because a map would drop names that occur twice.
        let rows: Vec<String> = rows.iter().map(|(name, row)| format!("\"{name}\":{row}")).collect();
        read_all(&file_with(&format!("{{{}}}", rows.join(",")), &vec![7; length]))?;
    }

    #[test]
    fn a_changed_byte_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let tensors = [NamedTensor::new("w", &[2, 3], vec![1.0f32; 6]), NamedTensor::new("i", &[2], vec![1i64, 2])];
        let mut bytes = to_safetensors_bytes(&tensors, &[("format", "pt")]).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        read_all(&bytes)?;
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(Tensors::from_bytes(bytes, "f").is_err(), "a shorter file is never whole");
    }

    #[test]
    fn what_is_written_is_read_back(
        list in prop::collection::btree_map("[^\u{0}]{1,12}", prop::collection::vec(0usize..5, 0..4), 0..6), seed in any::<u32>(),
    ) {
        prop_assume!(!list.contains_key("__metadata__"));
        let tensors: Vec<NamedTensor> = list.iter().enumerate().map(|(i, (name, shape))| {
            let count: usize = shape.iter().product();
            match (seed as usize + i) % 3 {
                0 => NamedTensor::new(name.as_str(), shape, vec![f32::from_bits(seed); count]),
                1 => NamedTensor::new(name.as_str(), shape, vec![seed as u8; count]),
                _ => NamedTensor::new(name.as_str(), shape, vec![i64::from(seed); count]),
            }
        }).collect();
        let bytes = to_safetensors_bytes(&tensors, &[]).unwrap();
        read_all(&bytes)?;
        let back = Tensors::from_bytes(bytes, "f").unwrap();
        prop_assert_eq!(back.len(), tensors.len());
        for tensor in &tensors {
            let view = back.get(&tensor.name).unwrap();
            prop_assert_eq!((view.dtype, view.shape), (tensor.data.dtype(), tensor.shape.as_slice()));
        }
    }

    #[test]
    fn any_index_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), value in any_json()) {
        let _ = parse_index(&bytes);
        for text in [value.to_string(), json!({ "weight_map": value }).to_string(), json!({ "weight_map": { "w": value } }).to_string()] {
            if let Ok(pairs) = parse_index(text.as_bytes()) {
                prop_assert!(pairs.iter().all(|(_, file)| !file.contains('/') && file.ends_with(".safetensors")));
            }
        }
    }

    #[test]
    fn any_config_is_read_or_refused(value in any_json(), entries in prop::collection::vec(any_json(), 8), accept in any::<bool>()) {
        const KEYS: [&str; 8] = ["hidden_size", "eps", "flag", "name", "list", "id2label", "num_labels", "temperature"];
        let config: Map<String, Value> = KEYS.iter().map(|k| k.to_string()).zip(entries).collect();
        for config in [value, Value::Object(config)] {
            let Ok(reader) = ConfigReader::new(&config, "any") else { continue };
            let _ = (reader.usize("hidden_size"), reader.f64_or("eps", 1.0), reader.bool("flag"), reader.str("name"));
            let _ = (reader.optional_usizes("list"), reader.optional_strings("list"), reader.labels());
            let _ = reader.refuse_unless("name", "x").map_err(|e| e.to_string());
            let _ = reader.finish(accept).map_err(|e| e.to_string());
        }
    }
}
