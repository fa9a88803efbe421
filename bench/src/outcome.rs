//! Figures of a run, and the middle of the same figures over several runs.

/// One number with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name, unit last.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Whether this is what servers are compared by; less is better.
    pub is_cost: bool,
}

impl Figure {
    /// A figure that explains.
    pub fn new(name: &'static str, value: f64) -> Self {
        Self {
            name,
            value,
            is_cost: false,
        }
    }

    /// The figure that is compared.
    pub fn cost(name: &'static str, value: f64) -> Self {
        Self {
            name,
            value,
            is_cost: true,
        }
    }
}

/// Figures of one run of a scenario; exactly one of them is the cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome(pub Vec<Figure>);

impl Outcome {
    /// Returns the figure that is compared.
    pub fn cost(&self) -> f64 {
        self.0
            .iter()
            .find(|figure| figure.is_cost)
            .map_or(f64::NAN, |figure| figure.value)
    }

    /// The figures' names, which are the same for every run of a scenario.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|figure| figure.name).collect()
    }

    /// Each figure's median over several runs of one scenario.
    pub fn median(runs: &[Self]) -> Option<Self> {
        let mut middle = runs.first()?.clone();
        for (index, figure) in middle.0.iter_mut().enumerate() {
            let mut values: Vec<f64> = runs.iter().map(|run| run.0[index].value).collect();
            figure.value = median(&mut values);
        }
        Some(middle)
    }

    /// The least and the greatest cost over several runs.
    pub fn cost_range(runs: &[Self]) -> (f64, f64) {
        let costs = runs.iter().map(Self::cost);
        (
            costs.clone().fold(f64::INFINITY, f64::min),
            costs.fold(f64::NEG_INFINITY, f64::max),
        )
    }
}

/// The middle value, or the mean of the two middle ones; NaN of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (count, half) if count % 2 == 1 => values[half],
        (_, half) => (values[half - 1] + values[half]) / 2.0,
    }
}

/// A number with as many digits as it deserves.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, cost: f64) -> Outcome {
        Outcome(vec![
            Figure::new("rate /s", rate),
            Figure::cost("CPU µs a message", cost),
        ])
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&mut []).is_nan());
    }

    #[test]
    fn each_figure_has_its_own_median() {
        let runs = [run(10.0, 3.0), run(30.0, 1.0), run(20.0, 9.0)];
        assert_eq!(Outcome::median(&runs), Some(run(20.0, 3.0)));
        assert_eq!(Outcome::cost_range(&runs), (1.0, 9.0));
        assert_eq!(Outcome::median(&[]), None);
    }

    #[test]
    fn small_numbers_show_more_digits() {
        assert_eq!([1.234, 12.34, 1234.5].map(digits), ["1.23", "12.3", "1234"]);
    }
}
