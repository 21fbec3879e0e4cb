use super::*;
use crate::task::{Prediction, Truth};

fn table() -> ConfusionTable {
    let truths = [0, 0, 1, 1].map(Truth::Class);
    let said =
        [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]].map(|p| Prediction::Classes(p.to_vec()));
    let labels = ["부정<".to_owned(), "긍정".to_owned()];
    ConfusionTable::of(&truths, &said, &labels).unwrap()
}

#[test]
fn pairs_are_counted_and_drawn() {
    let table = table();
    assert_eq!(table.counts, [[1, 1], [0, 2]]);
    assert_eq!(table.rows()[2], ["긍정", "0", "2"]);
    let svg = table.svg();
    assert!(svg.contains("부정&lt;") && !svg.contains("부정<"), "{svg}");
    // Two labels twice, a title, a remark, and a number a cell that is not empty.
    assert_eq!(svg.matches("<text").count(), 4 + 2 + 3);
    assert_eq!(svg.matches("<rect").count(), 1 + 4);
    let values = [Truth::Value(1.0)];
    assert_eq!(
        ConfusionTable::of(&values, &[Prediction::Value(1.0)], &table.labels),
        None
    );
}

#[test]
fn choices_have_numbers_for_names() {
    let said = [vec![0.9, 0.1], vec![0.1, 0.2, 0.7]].map(Prediction::Classes);
    let numbers = ConfusionTable::numbers(&said);
    assert_eq!(numbers, ["0", "1", "2"]);
    let table = ConfusionTable::of(&[0, 2].map(Truth::Class), &said, &numbers).unwrap();
    assert_eq!(table.counts, [[1, 0, 0], [0, 0, 0], [0, 0, 1]]);
}

#[test]
fn curves_come_from_the_lines_of_a_run() {
    let text = "{\"kind\":\"train\",\"step\":1,\"loss\":2.0,\"lr\":0.1}\n\
                {\"kind\":\"valid\",\"step\":1,\"loss\":1.5,\"accuracy\":0.5,\"best\":true,\"targets\":9}\n\
                {\"kind\":\"train\",\"step\":2,\"loss\":1.0}\n\
                {\"kind\":\"valid\",\"step\":2,\"loss\":1.2,\"accuracy\":0.75}\nnot json\n";
    let svg = Curves::read(text).svg();
    for words in ["Loss", ">train<", ">valid<", ">accuracy<"] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
    assert!(!svg.contains(">lr<") && !svg.contains("NaN"), "{svg}");
    let empty = Curves::read("").svg();
    assert_eq!(empty.matches("nothing was measured").count(), 2);
}

/// Number behind `key="` in a line of a picture.
fn number(line: &str, key: &str) -> f64 {
    let (_, rest) = line.split_once(&format!(" {key}=\"")).unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

#[test]
fn names_of_many_lines_stand_apart_above_the_chart() {
    let metrics = "\"f1\":0.1,\"precision\":0.2,\"recall\":0.3,\"f1_strict\":0.4,\"f1_macro\":0.5,\"f1_char\":0.6,\"accuracy\":0.7,\"a_metric_with_a_very_long_name\":0.8";
    let svg = Curves::read(&format!("{{\"kind\":\"valid\",\"step\":1,{metrics}}}\n")).svg();
    let names: Vec<(f64, f64, f64)> = svg
        .lines()
        .filter(|line| line.contains("font-size=\"11\""))
        .map(|line| {
            let words = line.split_once('>').unwrap().1;
            let words = words.strip_suffix("</text>").unwrap();
            (number(line, "x"), number(line, "y"), width(words))
        })
        .collect();
    assert_eq!(names.len(), 8);
    for (i, a) in names.iter().enumerate() {
        assert!(a.0 + a.2 < 960.0, "{a:?}");
        for b in &names[i + 1..] {
            assert!(a.1 != b.1 || a.0 + a.2 < b.0, "{a:?} {b:?}");
        }
    }
    let lowest = names.iter().map(|name| name.1).fold(0.0, f64::max);
    let points = svg.lines().filter(|line| line.contains("width=\"4.0\""));
    assert!(points.clone().count() == 8 && points.clone().all(|line| number(line, "y") > lowest));
}

#[test]
fn the_remark_of_a_small_confusion_matrix_fits() {
    let svg = table().svg();
    let remark = svg
        .lines()
        .find(|line| line.contains("rows: true"))
        .unwrap();
    let words = remark.split_once('>').unwrap().1;
    let end = number(remark, "x") + width(words.strip_suffix("</text>").unwrap());
    assert!(end < number(svg.lines().next().unwrap(), "width"), "{svg}");
}
