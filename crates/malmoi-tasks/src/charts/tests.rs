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
