//! Parquet files as rows: flat columns, lists, missing cells, compression, and bad files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use malmoi_text::{RowOptions, RowReader};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

/// Writes three rows: a text (the last one missing), a number and a list of texts.
fn write(path: &Path, compression: Compression) {
    let schema = "message rows {
        optional binary text (UTF8);
        required int64 label;
        required group tags (LIST) { repeated group list { required binary element (UTF8); } }
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties))
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = |list: &[&str]| {
        list.iter()
            .map(|text| ByteArray::from(*text))
            .collect::<Vec<_>>()
    };
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ByteArrayType>()
        .write_batch(&bytes(&["좋다", "b"]), Some(&[1, 1, 0]), None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(&[1, 0, -7], None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    // Two tags, none, one.
    let levels = (&[1, 1, 0, 1], &[0, 1, 0, 0]);
    column
        .typed::<ByteArrayType>()
        .write_batch(&bytes(&["O", "B-X", "기"]), Some(levels.0), Some(levels.1))
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

fn options(columns: &[&str]) -> RowOptions {
    RowOptions {
        columns: columns.iter().map(ToString::to_string).collect(),
        ..RowOptions::default()
    }
}

#[test]
fn rows_have_texts_numbers_lists_and_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    let kinds = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::GZIP(GzipLevel::default()),
    ];
    for compression in kinds {
        write(&path, compression);
        let reader = RowReader::open(&path, &options(&["text", "tags"])).unwrap();
        assert_eq!(reader.columns(), ["text", "label", "tags"]);
        let rows: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].get("text"), Some("좋다"));
        assert_eq!(rows[0].value("tags"), Some(json!(["O", "B-X"])));
        assert_eq!(rows[1].value("tags"), Some(json!([])));
        assert_eq!(
            (rows[2].value("text"), rows[2].line()),
            (Some(json!(null)), 3)
        );
        assert_eq!(
            rows[2].value("label"),
            None,
            "only the columns that are wanted are read"
        );
        let all: Vec<_> = RowReader::open(&path, &options(&[]))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(all[2].value("label"), Some(json!(-7)));
    }
}

#[test]
fn a_missing_column_and_a_broken_file_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    write(&path, Compression::SNAPPY);
    let error = RowReader::open(&path, &options(&["document"]))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("document") && error.contains("text, label, tags"),
        "{error}"
    );
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 3, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let error = RowReader::open(&path, &options(&[]))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("rows.parquet") && error.contains("Parquet"),
            "{error}"
        );
    }
    // Damage inside a page is an error of its row, never a panic.
    for at in (4..bytes.len() - 8).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x5a;
        std::fs::write(&path, &damaged).unwrap();
        if let Ok(rows) = RowReader::open(&path, &options(&[])) {
            let _ = rows.take(10).filter(Result::is_err).count();
        }
    }
}
